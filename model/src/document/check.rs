//! Walks a document along its declared fields and reports everything that does not fit.

use super::{
    scalars,
    spec::{FieldSpec, Kind, LIST_REFERENCE, ObjectSpec, SNI},
    tree::{Node, NodeKind},
    violation::{Path, Violation, nearest},
};

/// Reports what is wrong with `object`.
pub(super) fn check_object(object: &Node, spec: &ObjectSpec, path: &Path<'_>, out: &mut Vec<Violation>) {
    let NodeKind::Object(entries) = &object.kind else {
        return out.push(wrong_type(object, path, "an object"));
    };
    for entry in entries {
        let here = Path::Field(path, &entry.key);
        match spec.fields.iter().find(|field| field.name == entry.key) {
            Some(field) => check(&entry.value, &field.kind, &here, out),
            None => out.push(unknown_field(spec, &entry.key, entry.key_at, &here)),
        }
    }
    for FieldSpec { name, .. } in spec.fields.iter().filter(|field| field.required) {
        if !entries.iter().any(|entry| entry.key == *name) {
            let detail = format!("a {} needs {name:?}", spec.name);
            out.push(Violation::new(path.to_string(), object.at, "missing-field", detail));
        }
    }
}

fn unknown_field(
    spec: &ObjectSpec,
    key: &str,
    at: Option<super::tree::Position>,
    path: &Path<'_>,
) -> Violation {
    if spec.later.contains(&key) {
        let detail = format!("{key:?} of a {} is not supported yet", spec.name);
        return Violation::new(path.to_string(), at, "not-supported-yet", detail);
    }
    let violation = Violation::new(
        path.to_string(),
        at,
        "unknown-field",
        format!("a {} has no field {key:?}", spec.name),
    );
    let known = spec.fields.iter().map(|field| field.name).chain(spec.later.iter().copied());
    match nearest(key, known) {
        Some(word) => violation.hint(format!("did you mean {word:?}?")),
        None => {
            let names: Vec<_> = spec.fields.iter().map(|field| field.name).collect();
            violation.hint(format!("it has {}", names.join(", ")))
        }
    }
}

fn check(node: &Node, kind: &Kind, path: &Path<'_>, out: &mut Vec<Violation>) {
    match kind {
        Kind::Object(spec) => check_object(node, spec, path, out),
        Kind::List(item) => match &node.kind {
            NodeKind::List(items) => check_items(items, item, path, out),
            _ => out.push(wrong_type(node, path, "a list")),
        },
        Kind::OneOrMany(item) => match &node.kind {
            NodeKind::List(items) => check_items(items, item, path, out),
            _ => check(node, item, path, out),
        },
        Kind::Empty => match &node.kind {
            NodeKind::Object(entries) if entries.is_empty() => {}
            _ => out.push(wrong_type(node, path, "{}")),
        },
        Kind::Labels => match &node.kind {
            NodeKind::Object(entries) => {
                for entry in entries {
                    let here = Path::Field(path, &entry.key);
                    if text_of(&entry.value, &here, out).is_some_and(|text| text.len() > 255)
                        || entry.key.len() > 255
                    {
                        out.push(bad(&entry.value, &here, "a label has at most 255 characters".to_owned()));
                    }
                }
            }
            _ => out.push(wrong_type(node, path, "an object of labels")),
        },
        Kind::Integer { min, max } => integer(node, path, *min, *max, out),
        Kind::Constant(value) => match node.kind {
            NodeKind::Integer(integer) if integer == *value => {}
            NodeKind::Integer(integer) => {
                let detail = format!("{integer} is not known here, only {value}");
                out.push(Violation::new(path.to_string(), node.at, "bad-value", detail));
            }
            _ => out.push(wrong_type(node, path, "a number")),
        },
        Kind::Limit { max } => match node.as_text() {
            Some("unlimited") => {}
            _ => integer(node, path, 1, *max, out),
        },
        Kind::DurationLimit if node.as_text() == Some("unlimited") => {}
        Kind::Bool => {
            if !matches!(node.kind, NodeKind::Bool(_)) {
                out.push(wrong_type(node, path, "true or false"));
            }
        }
        Kind::Share => {
            let share = match node.kind {
                NodeKind::Integer(integer) => Some(integer as f64),
                NodeKind::Float(float) => Some(float),
                _ => None,
            };
            match share {
                Some(share) if (0.0..=1.0).contains(&share) => {}
                Some(_) => out.push(bad(node, path, "a part is a number from 0 to 1".to_owned())),
                None => out.push(wrong_type(node, path, "a number from 0 to 1")),
            }
        }
        Kind::Statuses if matches!(node.kind, NodeKind::Integer(_)) => integer(node, path, 100, 599, out),
        Kind::TextOr(spec) if matches!(node.kind, NodeKind::Object(_)) => {
            let before = out.len();
            check_object(node, spec, path, out);
            if out.len() == before && !matches!(&node.kind, NodeKind::Object(entries) if entries.len() == 1) {
                let words: Vec<_> = spec.fields.iter().map(|field| format!("{:?}", field.name)).collect();
                out.push(bad(node, path, format!("write text, or one of {}", words.join(" and "))));
            }
        }
        Kind::Ports if matches!(node.kind, NodeKind::Integer(_)) => integer(node, path, 1, 65_535, out),
        Kind::Sni if matches!(node.kind, NodeKind::Object(_)) => {
            check_object(node, &SNI, path, out);
            if !matches!(&node.kind, NodeKind::Object(entries) if entries.len() == 1) {
                let detail = "write one of \"prefix\", \"suffix\", \"regex\" and \"map\"".to_owned();
                out.push(bad(node, path, detail));
            }
        }
        Kind::Address if matches!(node.kind, NodeKind::Object(_)) => {
            check_object(node, &LIST_REFERENCE, path, out);
        }
        Kind::MapEntries => match &node.kind {
            NodeKind::Object(entries) => {
                for entry in entries {
                    let here = Path::Field(path, &entry.key);
                    if let Err(detail) = scalars::map_key(&entry.key) {
                        let at = entry.key_at.or(entry.value.at);
                        out.push(Violation::new(here.to_string(), at, "bad-value", detail));
                    }
                    check(&entry.value, &Kind::Name, &here, out);
                }
            }
            _ => out.push(wrong_type(node, path, "an object of server names")),
        },
        _ => check_text(node, kind, path, out),
    }
}

fn check_items(items: &[Node], kind: &Kind, path: &Path<'_>, out: &mut Vec<Violation>) {
    for (index, item) in items.iter().enumerate() {
        check(item, kind, &Path::Index(path, index), out);
    }
}

fn check_text(node: &Node, kind: &Kind, path: &Path<'_>, out: &mut Vec<Violation>) {
    let Some(text) = text_of(node, path, out) else { return };
    let result = match kind {
        Kind::Name => text.parse::<crate::Name>().map(drop).map_err(|error| error.to_string()),
        Kind::Duration | Kind::DurationLimit => scalars::duration(text).map(drop),
        Kind::Bind => scalars::bind(text).map(drop),
        Kind::BackendAddress => scalars::backend_address(text).map(drop),
        Kind::Prefix | Kind::Address => scalars::prefix(text).map(drop),
        Kind::Sni => scalars::sni(text).map(drop),
        Kind::NamePart => scalars::name_part(text).map(drop),
        Kind::Regex => scalars::regex(text).map(drop),
        Kind::LabelSelector => {
            text.parse::<crate::LabelSelector>().map(drop).map_err(|error| error.to_string())
        }
        Kind::NameTemplate => {
            text.parse::<crate::NameTemplate>().map(drop).map_err(|error| error.to_string())
        }
        Kind::Ports => scalars::ports(text).map(drop),
        Kind::Statuses => scalars::statuses(text).map(drop),
        Kind::Hex => scalars::hex(text).map(drop),
        Kind::BytesRegex => {
            crate::pattern_regex(text).map(drop).map_err(|error| format!("this is no expression: {error}"))
        }
        Kind::Ip => text.parse::<std::net::IpAddr>().map(drop).map_err(|_| format!("{text:?} is no address")),
        Kind::Pem(label) => scalars::pem(text, label),
        Kind::Word { words, later } => return word(node, text, words, later, path, out),
        Kind::Text | Kind::TextOr(_) => match text.len() {
            1..=4096 => Ok(()),
            0 => Err("this text is empty".to_owned()),
            _ => Err("this text is longer than 4096 bytes".to_owned()),
        },
        Kind::Object(_) | Kind::List(_) | Kind::OneOrMany(_) | Kind::Empty | Kind::Labels => Ok(()),
        Kind::Integer { .. }
        | Kind::Limit { .. }
        | Kind::Constant(_)
        | Kind::Bool
        | Kind::Share
        | Kind::MapEntries => Ok(()),
    };
    if let Err(detail) = result {
        out.push(bad(node, path, detail));
    }
}

fn word(
    node: &Node,
    text: &str,
    words: &[&'static str],
    later: &[&'static str],
    path: &Path<'_>,
    out: &mut Vec<Violation>,
) {
    if words.contains(&text) {
        return;
    }
    if later.contains(&text) {
        let detail = format!("{text:?} is not supported yet");
        return out.push(Violation::new(path.to_string(), node.at, "not-supported-yet", detail));
    }
    let violation =
        Violation::new(path.to_string(), node.at, "unknown-value", format!("{text:?} is not known here"));
    out.push(match nearest(text, words.iter().copied()) {
        Some(word) => violation.hint(format!("did you mean {word:?}?")),
        None => violation.hint(format!("one of {}", words.join(", "))),
    });
}

fn integer(node: &Node, path: &Path<'_>, min: i64, max: i64, out: &mut Vec<Violation>) {
    match node.kind {
        NodeKind::Integer(integer) if (min..=max).contains(&integer) => {}
        NodeKind::Integer(0) if min == 1 => out.push(bad(node, path, "0 has no meaning here".to_owned())),
        NodeKind::Integer(integer) => {
            let detail = format!("{integer} is not from {min} to {max}");
            out.push(Violation::new(path.to_string(), node.at, "out-of-range", detail));
        }
        _ => out.push(wrong_type(node, path, "a whole number")),
    }
}

fn text_of<'a>(node: &'a Node, path: &Path<'_>, out: &mut Vec<Violation>) -> Option<&'a str> {
    let text = node.as_text();
    if text.is_none() {
        let violation = wrong_type(node, path, "text");
        out.push(match node.kind {
            NodeKind::Bool(_) | NodeKind::Integer(_) | NodeKind::Float(_) => {
                violation.hint("put it in quotes")
            }
            _ => violation,
        });
    }
    text
}

fn wrong_type(node: &Node, path: &Path<'_>, wanted: &str) -> Violation {
    let detail = format!("expected {wanted}, found {}", node.kind_word());
    Violation::new(path.to_string(), node.at, "wrong-type", detail)
}

fn bad(node: &Node, path: &Path<'_>, detail: String) -> Violation {
    Violation::new(path.to_string(), node.at, "bad-value", detail)
}
