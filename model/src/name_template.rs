//! Names of discovered backends: `${label.app}-${address}`.

use std::{fmt, str::FromStr};

use crate::{BackendAddress, BackendHost, Labels, Name, document::made_backend_name};

/// How a backend is called, from what is known of it. Printed as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct NameTemplate {
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// Host and port.
    Address,
    Host,
    Port,
    Label(Box<str>),
}

/// Why a text is no [`NameTemplate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameTemplateError {
    /// A brace that stays open.
    #[error("\"${{\" without \"}}\"")]
    Open,
    /// Something that is not known of backends.
    #[error("{0:?} is not known of a backend: use ${{address}}, ${{host}}, ${{port}} or ${{label.KEY}}")]
    Unknown(String),
    /// All would be called the same.
    #[error("without a variable all backends would have the same name: use ${{address}} or ${{label.KEY}}")]
    Constant,
}

impl NameTemplate {
    /// The name: what names cannot have becomes a hyphen, what is too long is cut. `None`: nothing is left of it.
    pub fn name(&self, address: &BackendAddress, labels: &Labels) -> Option<Name> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Address => text.push_str(&address.to_string()),
                Part::Host => match &address.host {
                    BackendHost::Ip(ip) => text.push_str(&ip.to_string()),
                    BackendHost::Name(name) => text.push_str(name),
                },
                Part::Port => text.extend(address.port.map(|port| port.to_string())),
                Part::Label(key) => text.push_str(labels.get(&**key).map(String::as_str).unwrap_or_default()),
            }
        }
        let mut name = made_backend_name(&text);
        name.truncate(Name::MAX_LEN);
        name.trim_end_matches('-').parse().ok()
    }
}

impl FromStr for NameTemplate {
    type Err = NameTemplateError;

    fn from_str(text: &str) -> Result<Self, NameTemplateError> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once("${") {
            let (variable, after) = behind.split_once('}').ok_or(NameTemplateError::Open)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(match variable {
                "address" => Part::Address,
                "host" => Part::Host,
                "port" => Part::Port,
                other => match other.strip_prefix("label.").filter(|key| !key.is_empty()) {
                    Some(key) => Part::Label(key.into()),
                    None => return Err(NameTemplateError::Unknown(other.to_owned())),
                },
            });
            rest = after;
        }
        if parts.is_empty() {
            return Err(NameTemplateError::Constant);
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { text: text.into(), parts })
    }
}

impl fmt::Display for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for NameTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(template: &str, address: &str) -> Option<String> {
        let template: NameTemplate = template.parse().unwrap_or_else(|why| panic!("{template}: {why}"));
        let labels =
            Labels::from([("app".to_owned(), "Shop_2".to_owned()), ("none".to_owned(), "--".to_owned())]);
        let address = crate::document::backend_address(address).unwrap();
        template.name(&address, &labels).map(|name| name.to_string())
    }

    #[test]
    fn names_are_made_of_what_is_known() {
        let made = |template| name(template, "10.0.0.1:80").unwrap();
        assert_eq!(made("${label.app}-${address}"), "shop-2-10-0-0-1-80");
        assert_eq!(made("${host}:${port}"), "10-0-0-1-80");
        assert_eq!(made("db-${label.app}"), "db-shop-2");
        assert_eq!(made("${label.missing}-${host}-x"), "10-0-0-1-x");
        assert_eq!(name("${address}", "[2001:db8::1]:80").unwrap(), "2001-db8-1-80");
        assert_eq!(name("${label.none}", "10.0.0.1:80"), None);
        assert_eq!(name("${label.app}${port}", "10.0.0.1").unwrap(), "shop-2");
    }

    #[test]
    fn what_is_no_template_says_so() {
        assert_eq!("${a".parse::<NameTemplate>(), Err(NameTemplateError::Open));
        assert_eq!("${a}".parse::<NameTemplate>(), Err(NameTemplateError::Unknown("a".to_owned())));
        assert_eq!("${label.}".parse::<NameTemplate>(), Err(NameTemplateError::Unknown("label.".to_owned())));
        assert_eq!("web".parse::<NameTemplate>(), Err(NameTemplateError::Constant));
        assert!(NameTemplateError::Open.to_string().contains("${"));
    }
}
