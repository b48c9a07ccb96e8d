//! The query of a request, read so that nothing in it can mean two things.

use std::borrow::Cow;

/// The parameters of a query, in the order they came.
#[derive(Debug)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// A parameter that is missing, or there more than once: WeChat sends each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOne(pub &'static str);

impl<'a> Query<'a> {
    /// Reads `a=1&b=2`, percent-decoded.
    pub fn parse(query: &'a str) -> Self {
        if query.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
            return Self(form_urlencoded::parse(query.as_bytes()).collect());
        }
        // As a rule WeChat escapes nothing, and every name and value is there as it stands.
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// Returns the one value of a parameter.
    pub fn one(&self, name: &'static str) -> Result<&str, NotOne> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_ref());
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(NotOne(name)),
        }
    }

    /// Returns the value of a parameter; nothing if it is missing or there more than once.
    pub fn optional(&self, name: &'static str) -> Option<&str> {
        self.one(name).ok()
    }

    /// Whether any of these parameters is there.
    pub fn names_any(&self, names: &[&str]) -> bool {
        self.0.iter().any(|(key, _)| names.contains(&key.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_has_one_value_or_none() {
        let query = Query::parse("a=1&b=2&b=3&c=%E5%A5%BD&signature[]=x");
        assert_eq!(query.one("a"), Ok("1"));
        assert_eq!(query.one("b"), Err(NotOne("b")));
        assert_eq!(query.one("c"), Ok("好"));
        assert_eq!(query.one("signature"), Err(NotOne("signature")));
    }

    #[test]
    fn a_query_without_escapes_is_read_as_one_with_them() {
        for query in ["", "a", "a=", "=1", "a=1", "&&a=1&", "a=1=2&b", "a=&=&b=好", "a=1?b=2#c"] {
            let decoded: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
            assert_eq!(Query::parse(query).0, decoded, "{query:?}");
        }
    }
}
