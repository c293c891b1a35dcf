//! `If-Match`: a change is made only if nobody has made another since the client read the state.

use super::ApiProblem;

/// What a client believes of the state's version (RFC 9110, 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// `*`: any version will do.
    Any,
    /// One of these entity tags, as `"17"`.
    OneOf(Vec<String>),
}

/// The entity tag of everything that is read at a version of the state.
pub fn entity_tag(version: u64) -> String {
    format!("\"{version}\"")
}

impl Precondition {
    /// From a header's value; `None` when it is no list of entity tags.
    pub fn parse(text: &str) -> Option<Precondition> {
        if text.trim() == "*" {
            return Some(Precondition::Any);
        }
        let tag = |tag: &str| {
            let tag = tag.trim();
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
            quoted.then(|| tag.to_owned())
        };
        Some(Precondition::OneOf(text.split(',').map(tag).collect::<Option<_>>()?))
    }

    /// Whether the state may be changed at this version. Weak tags never match (RFC 9110, 8.8.3.2).
    ///
    /// # Errors
    /// [`ApiProblem::VersionMismatch`].
    pub fn check(&self, version: u64) -> Result<(), ApiProblem> {
        match self {
            Precondition::Any => Ok(()),
            Precondition::OneOf(tags) if tags.contains(&entity_tag(version)) => Ok(()),
            Precondition::OneOf(tags) => {
                Err(ApiProblem::VersionMismatch { current: version, wanted: tags.join(", ") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_9110() {
        assert_eq!(Precondition::parse("*"), Some(Precondition::Any));
        assert_eq!(Precondition::parse("17"), None);
        assert_eq!(Precondition::parse(""), None);
        let two = Precondition::parse("\"16\", \"17\"").unwrap();
        assert!(two.check(17).is_ok() && two.check(16).is_ok() && two.check(18).is_err());
        assert!(Precondition::parse("W/\"17\"").unwrap().check(17).is_err());
    }
}
