//! What comes from outside is read or refused, whatever it is: no text makes a reader panic, hang, or take something for what it
//! is not. Texts are any, and such as are nearly right; a run has the same ones each time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use turnwise_engine::ServerInstant;
use turnwise_node::batch::BatchId;
use turnwise_node::caller::request::{parse_destination, parse_header, parse_method};
use turnwise_node::caller::{CallOutcome, Origin, SigningKey, Targets};
use turnwise_node::config::{parse_age, parse_duration, parse_period, parse_queue};
use turnwise_node::job::{ConcurrencyKey, JobId, UniqueKey};
use turnwise_node::rfc3339;
use turnwise_node::schedule::{Cron, Misfire};
use turnwise_node::store::{Rate, Statuses};
use turnwise_node::token::{Role, TokenHash};

/// So many texts for each reader.
const CASES: u32 = 400;

/// Try a reader with texts that look like `nearly` (a regular expression), and with any.
fn each(nearly: &'static str, reads: impl Fn(&str)) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let texts = prop_oneof![3 => nearly.prop_map(|text: String| text), 1 => any::<String>()];
    runner
        .run(&texts, |text| {
            reads(&text);
            Ok(())
        })
        .unwrap();
}

/// What is read is written so that it is read as the same; what is refused says why.
fn comes_back<T>(nearly: &'static str)
where
    T: FromStr<Err: Display> + Display + PartialEq + Debug,
{
    each(nearly, |text| match text.parse::<T>() {
        Ok(read) => {
            let written = read.to_string();
            let again = written.parse::<T>();
            assert_eq!(again.ok().as_ref(), Some(&read), "{text:?} is written {written:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty(), "{text:?}"),
    });
}

#[test]
fn what_is_read_is_written_so_that_it_is_read_again() {
    comes_back::<Rate>(r" ?[0-9]{1,8} ?/ ?[0-9]{0,6}(ms|s|m|h|d|us|)");
    comes_back::<Misfire>("(skip|once|all|All|)");
    comes_back::<JobId>("[0-9a-f]{8}-[0-9a-fA-F]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{11,13}");
    comes_back::<BatchId>("[{]?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}");
    comes_back::<Statuses>("[ ,]{0,2}([0-9]{1,4}[ ,]{1,2}){0,70}");
    comes_back::<Origin>(r"(http|https|ftp|)://[a-z0-9.\[\]:@%-]{0,20}(:[0-9]{0,6})?/?");
}

#[test]
fn whatever_is_given_is_read_or_refused() {
    let is_said = |error: &dyn Display, text: &str| {
        let said = error.to_string();
        assert!(!said.is_empty() && said.len() < 4_096, "{text:?}: {said}");
    };
    each("[0-9]{0,12}[a-z]{0,3} ?[0-9]{0,4}(ms|s|m|h|day|years)?", |text| {
        let _ = parse_duration(text).inspect_err(|error| is_said(error, text));
        let _ = parse_period(text).inspect_err(|error| is_said(error, text));
        let _ = parse_age(text).inspect_err(|error| is_said(error, text));
    });
    each(r"([a-z]{0,9}|\PC{0,140})", |text| {
        let _ = parse_queue(text).inspect_err(|error| is_said(error, text));
        let _ = text.parse::<UniqueKey>().inspect_err(|error| is_said(error, text));
        let _ = text.parse::<ConcurrencyKey>().inspect_err(|error| is_said(error, text));
        let _ = parse_method(text).inspect_err(|error| is_said(error, text));
        let _ = parse_header(text, text).inspect_err(|error| is_said(error, text));
    });
    each("(whsec_)?[A-Za-z0-9+/=_-]{0,90}", |text| {
        let _ = text.parse::<SigningKey>().inspect_err(|error| is_said(error, text));
        let _ = text.parse::<TokenHash>();
        let _ = text.parse::<Role>();
    });
    each(r"(/|//|http://|https:|\\)?[a-z0-9.\[\]:@%?#/ ü-]{0,60}", |text| {
        let _ = parse_destination(text).inspect_err(|error| is_said(error, text));
        let _ = Targets::parse(&[text]).inspect_err(|error| is_said(error, text));
    });
}

#[test]
fn whatever_stands_in_a_time_is_read_or_none_and_comes_back() {
    each(
        "-?[0-9]{3,5}-[0-9]{1,2}-[0-9]{1,2}[Tt ][0-9]{1,2}:[0-9]{2}:[0-9]{2}(.[0-9]{0,10})?(Z|[+-][0-9]{2}:[0-9]{2})?",
        |text| {
            let Some(instant) = rfc3339::parse(text) else { return };
            let micros = ServerInstant::from_micros(instant.as_micros());
            assert_eq!(rfc3339::parse(&rfc3339::format(micros)), Some(micros), "{text:?}");
        },
    );
}

#[test]
fn whatever_cron_says_it_is_refused_or_its_times_come_after_each_other() {
    each("(@[a-z]{3,8}|([0-9*/,A-Z#L-]{1,7} ){4,6}[0-9*])", |text| {
        for zone in ["UTC", "Europe/Berlin", "Nowhere/Else"] {
            match Cron::parse(text, zone) {
                Err(error) => assert!(!error.to_string().is_empty(), "{text:?}"),
                Ok(cron) => {
                    let times = cron.next_times(1_800_000_000_000_000, 3);
                    assert!(times.iter().all(|time| *time > 1_800_000_000_000_000), "{text:?}");
                    assert!(times.is_sorted_by(|one, next| one < next), "{text:?}: {times:?}");
                }
            }
        }
    });
}

#[test]
fn whatever_a_target_answers_is_an_answer() {
    each(
        "([0-9]{1,20}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{5,9} GMT|-1|1e9)",
        |text| {
            let Ok(value) = HeaderValue::from_str(text) else { return };
            let mut headers = HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, value.clone());
            headers.insert(http::header::CONTENT_TYPE, value);
            for status in [100, 200, 202, 302, 404, 429, 503, 599] {
                let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
                let _ = CallOutcome::answered(status, &headers, text.as_bytes().to_vec(), now);
            }
        },
    );
}
