//! Promises about what is read of a job's call, for people.

use turnwise_node::job::{JobId, NewJob};
use turnwise_node::store::{REQUEST_BYTES_SHOWN, RequestView, Requests, Store};

use crate::world::World;

pub(crate) async fn a_jobs_call_is_read_with_the_beginning_of_its_body<W>(w: W)
where
    W: World,
    W::Store: Requests,
{
    let store = w.store();
    let headers =
        vec![("X-A".to_owned(), "ü \"q\"".to_owned()), ("X-B".to_owned(), "2".to_owned())];
    let body: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
    let job = NewJob { headers: headers.clone(), body: Some(body.clone()), ..NewJob::new("/x") };
    let plain = NewJob::new("/x");
    store.enqueue(&[job.clone(), plain.clone()]).await.unwrap();
    let mut read = store.request(job.id).await.unwrap().unwrap();
    read.headers.sort();
    let shown = body[..REQUEST_BYTES_SHOWN as usize].to_vec();
    assert_eq!(read, RequestView { headers, body: Some(shown), body_bytes: 10_000 });
    assert_eq!(store.request(plain.id).await.unwrap(), Some(RequestView::default()));
    assert_eq!(store.request(JobId::generate()).await.unwrap(), None);
}
