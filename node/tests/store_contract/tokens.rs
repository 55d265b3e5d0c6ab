//! Promises about the tokens of those who call the API.

use turnwise_node::store::{TokenMade, Tokens};
use turnwise_node::token::{Role, TOKENS_MAX, TokenHash};

use crate::member::Member;
use crate::world::{NOON, World};

pub(crate) async fn a_token_is_made_once_listed_and_revoked<W>(w: W)
where
    W: World,
    W::Store: Tokens,
{
    let store = Member::register(&w, 1).await.store;
    let hash = TokenHash::of("tw_1");
    for (name, role) in [("b", Role::Read), ("a ü \"q\"", Role::Operate), ("c", Role::Enqueue)] {
        let made = store.make_token(name, role, TokenHash::of(name)).await.unwrap();
        assert_eq!(made, TokenMade::Made, "{name}");
    }
    assert_eq!(store.make_token("b", Role::Operate, hash).await.unwrap(), TokenMade::NameTaken);
    let tokens = store.tokens().await.unwrap();
    let told: Vec<_> = tokens.iter().map(|token| (token.name.as_str(), token.role)).collect();
    assert_eq!(told, [("a ü \"q\"", Role::Operate), ("b", Role::Read), ("c", Role::Enqueue)]);
    assert!(tokens[1].hash.is_same(&TokenHash::of("b")), "it is left as it is");
    assert_eq!(tokens[0].created_at.as_micros(), NOON);
    assert!(store.revoke_token("b").await.unwrap());
    assert!(!store.revoke_token("b").await.unwrap());
    assert_eq!(store.tokens().await.unwrap().len(), 2);
    assert_eq!(store.make_token("b", Role::Read, hash).await.unwrap(), TokenMade::Made);
}

pub(crate) async fn tokens_have_names_and_are_so_many_and_no_more<W>(w: W)
where
    W: World,
    W::Store: Tokens,
{
    let store = Member::register(&w, 1).await.store;
    let make = async |name: &str| store.make_token(name, Role::Read, TokenHash::of(name)).await;
    assert!(make("").await.is_err() && make(&"n".repeat(101)).await.is_err());
    assert_eq!(make(&"n".repeat(100)).await.unwrap(), TokenMade::Made);
    for number in 1..TOKENS_MAX {
        assert_eq!(make(&number.to_string()).await.unwrap(), TokenMade::Made);
    }
    assert_eq!(make("one more").await.unwrap(), TokenMade::TooMany);
    assert_eq!(make("1").await.unwrap(), TokenMade::NameTaken);
    assert_eq!(store.tokens().await.unwrap().len(), TOKENS_MAX);
}
