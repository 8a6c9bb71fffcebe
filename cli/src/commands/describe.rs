//! All that is known of one object, for people.

use serde_json::{Value, json};

use super::get::next_of_certificate;
use crate::{
    args::{Kind, Output},
    client::{Client, encode},
    failure::Failure,
    output::{self, text},
    print,
};

pub async fn describe(client: &Client, kind: Kind, name: &str, form: Output) -> Result<(), Failure> {
    let path = match kind {
        Kind::Certificates => "certificates",
        Kind::AcmeAccounts => "acme-accounts",
        _ => return super::get::get(client, kind, Some(name), form).await,
    };
    let path = format!("/api/v1/{path}/{}", encode(name));
    let status = client.get(&format!("{path}/status")).await?;
    if matches!(form, Output::Name) {
        return output::value(form, &status);
    }
    let object = client.get(&path).await?;
    if matches!(form, Output::Json | Output::Yaml) {
        return output::value(form, &json!({"object": object, "status": status}));
    }
    let lines = if matches!(kind, Kind::Certificates) { certificate(&status) } else { account(&status) };
    let width = lines.iter().map(|(title, _)| title.len()).max().unwrap_or(0) + 2;
    for (title, value) in lines {
        // What comes from an authority must not move the cursor.
        let value: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        print(format!("{title:<width$}{value}").trim_end());
    }
    Ok(())
}

type Line = (&'static str, String);

fn certificate(status: &Value) -> Vec<Line> {
    let nodes = &status["nodes"];
    let mut lines = vec![
        ("Name", text(&status["name"])),
        ("State", text(&status["state"])),
        ("Names", text(&status["names"])),
    ];
    if status["state"] != "placeholder" {
        lines.push(("Valid", format!("{} to {}", text(&status["notBefore"]), text(&status["notAfter"]))));
        lines.push(("Days left", text(&status["daysLeft"])));
    }
    lines.push(("Used by", text(&status["usedBy"])));
    lines.push(("Nodes", format!("{} of {}", text(&nodes["serving"]), text(&nodes["connected"]))));
    for chain in status["chains"].as_array().into_iter().flatten() {
        lines.push(("Chain", format!("{} ({})", text(&chain["keyType"]), text(&chain["origin"]))));
        lines.push(("  Issuer", text(&chain["issuer"])));
        lines.push(("  Serial", text(&chain["serial"])));
        lines.push(("  SHA-256", text(&chain["fingerprint"])));
        lines.push(("  Not after", text(&chain["notAfter"])));
        if let Some(ocsp) = chain.get("ocsp") {
            let until = ocsp["nextUpdate"].as_str().map(|at| format!(" until {at}")).unwrap_or_default();
            lines.push(("  OCSP", format!("{}{until} {}", text(&ocsp["status"]), text(&ocsp["error"]))));
        }
    }
    let acme = &status["acme"];
    if acme.is_object() {
        lines.push(("Account", text(&acme["account"])));
        lines.push(("Ordered for", text(&acme["domains"])));
        lines.push(("Challenges", text(&acme["challenges"])));
        lines.push(("Next", next_of_certificate(status)));
        if acme["state"] != "failing" {
            lines.push(("", text(&acme["next"]["why"])));
        }
        lines.extend(error(&acme["lastError"]));
    }
    lines
}

fn account(status: &Value) -> Vec<Line> {
    let mut lines = vec![
        ("Name", text(&status["name"])),
        ("Directory", text(&status["directory"])),
        ("Registered", if status["registered"] == true { "yes".to_owned() } else { "not yet".to_owned() }),
        ("Address", text(&status["url"])),
        ("Contact", text(&status["contact"])),
        ("Terms", text(&status["terms"])),
        ("Certificates", text(&status["certificates"])),
    ];
    lines.extend(error(&status["lastError"]));
    lines.retain(|(_, value)| !value.is_empty());
    lines
}

/// The last failure, in the authority's words.
fn error(error: &Value) -> Vec<Line> {
    if !error.is_object() {
        return Vec::new();
    }
    let mut lines = vec![
        ("Last error", text(&error["detail"])),
        ("  Type", text(&error["type"])),
        ("  At", text(&error["at"])),
        ("  Domain", text(&error["domain"])),
        ("  Challenge", text(&error["challenge"])),
        ("  Silent nodes", text(&error["nodes"])),
        ("  Hint", text(&error["hint"])),
    ];
    lines.retain(|(_, value)| !value.is_empty());
    lines
}
