//! Decides how the address of a request is read: every parameter is known and given once, and what stands in the path is text.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;
use url::form_urlencoded;

use super::problem::{Kind, Problem};

/// The parameters behind the question mark.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Those of an address, all of which are `known`.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let mut params = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let say = match known {
                    [] => "this takes no parameters".to_owned(),
                    _ => format!("there is no such parameter; there are {}", known.join(", ")),
                };
                return Err(Problem::fault(Kind::BadRequest, name, say));
            }
            if params.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Problem::fault(Kind::BadRequest, name, "it is given twice"));
            }
        }
        Ok(Self(params))
    }

    /// What a parameter says, if it is given.
    pub(super) fn get<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let given = self.0.get(name).map(|value| parse(value)).transpose();
        given.map_err(|reason| Problem::fault(Kind::BadRequest, name, reason))
    }
}

/// What stands in the path where a name or an id is expected.
#[derive(Debug)]
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(name) = Path::from_request_parts(parts, state).await.map_err(|_| {
            Problem::fault(Kind::BadRequest, "path", "it is not UTF-8, written in percent-encoding")
        })?;
        Ok(Self(name))
    }
}

impl Named {
    /// The id that it is.
    pub(super) fn id<T: std::str::FromStr>(&self, what: &str) -> Result<T, Problem> {
        self.0.parse().map_err(|_| {
            let remedy =
                format!("A {what}'s id is a UUID, as 01936c5e-7d1a-7cc3-98c4-dc0c0c07398f");
            Problem::unknown(what, &self.0, &remedy)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_known_and_given_once() {
        let of = |text: &str| Params::of(&text.parse().unwrap(), &["a", "b"]);
        let params = of("/x?a=%C3%A4&b=1").unwrap();
        assert_eq!(params.get("a", |text| Ok(text.to_owned())).unwrap().as_deref(), Some("ä"));
        assert!(params.get("b", |_| Err::<(), _>("no".to_owned())).is_err());
        assert_eq!(of("/x").unwrap().get("a", |_| Ok(1)).unwrap(), None);
        assert!(format!("{:?}", of("/x?c=1").unwrap_err()).contains("there are a, b"));
        assert!(of("/x?a=1&a=1").is_err());
    }
}
