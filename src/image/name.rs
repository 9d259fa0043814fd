//! Names of images and containers in the store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: with what encodes it, a file can be called so.
const MAX: usize = 200;
/// The tag of a name that has none.
const LATEST: &str = ":latest";

/// The name of an image, with its tag: `debian:12`, `localhost/app:latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    /// What the file that holds the image is called.
    pub fn file_name(&self) -> String {
        format!("{}.json", self.0.replace('/', "%"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
        let is_part = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric());
        if text.is_empty() || text.len() > MAX || !text.chars().all(is_allowed) || !text.split('/').all(is_part) {
            let shown: String = text.chars().take(MAX).collect();
            return Err(format!(
                "{shown:?} is no name for an image: letters, digits and ._-+:@ in parts with a slash between them"
            ));
        }
        let has_tag = text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        Ok(Self(if has_tag { text.to_owned() } else { format!("{text}{LATEST}") }))
    }
}

impl TryFrom<String> for ImageName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the name of a container: one word, which a directory can be called.
///
/// # Errors
/// That it is none.
pub fn check_container(name: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && name.len() <= 100 && name.chars().all(is_allowed) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX).collect();
    Err(format!("{shown:?} is no name for a container: letters, digits and ._-, a letter or digit first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag_and_lead_nowhere() {
        for (text, name) in [
            ("debian", "debian:latest"),
            ("debian:12", "debian:12"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("docker.io/library/busybox@sha256:aa", "docker.io/library/busybox@sha256:aa"),
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().as_str(), name);
        }
        for bad in ["", "/", "a/", "/a", "..", "../a", "a/../b", "a b", "a%b", "é", "a\n", ".json", &"x".repeat(300)] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
            assert!(check_container(bad).is_err(), "{bad}");
        }
        assert!(check_container("a/b").is_err() && check_container("web-1.x").is_ok());
        assert_eq!("a/b".parse::<ImageName>().unwrap().file_name(), "a%b:latest.json");
    }
}
