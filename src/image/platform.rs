//! For which operating system and processor an image is made.

use std::fmt;
use std::str::FromStr;

/// A platform, in the words of Go, which images use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The processor.
    pub arch: String,
    /// The variant of the processor; `None` takes any.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".into(), arch: arch.into(), variant: None }
    }

    /// Whether an image that is made for these is for this platform.
    pub fn takes(&self, os: &str, arch: &str, variant: Option<&str>) -> bool {
        let is_variant = match (&self.variant, variant) {
            (Some(wanted), Some(variant)) => wanted == variant,
            _ => true,
        };
        self.os == os && self.arch == arch && is_variant
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(arch), variant, None) if !os.is_empty() && !arch.is_empty() => {
                Ok(Self { os, arch, variant })
            }
            _ => Err("not OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_and_compared() {
        let arm: Platform = "linux/arm/v7".parse().unwrap();
        assert!(arm.takes("linux", "arm", Some("v7")) && arm.takes("linux", "arm", None));
        assert!(!arm.takes("linux", "arm", Some("v6")) && !arm.takes("linux", "arm64", None));
        assert_eq!(arm.to_string(), "linux/arm/v7");
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
