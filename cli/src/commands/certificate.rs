//! Certificates by hand.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::{
    args::{CertificateAction, Output, Signer},
    client::{Client, encode},
    failure::Failure,
    output::{self, text},
    print, talk,
};

/// Between two looks at an order.
const LOOK: Duration = Duration::from_millis(500);

pub async fn run(client: &Client, action: CertificateAction, form: Output) -> Result<(), Failure> {
    match action {
        CertificateAction::Import { files, name, password_file, dry_run, force } => {
            let wish = json!({"name": name, "dryRun": dry_run, "force": force});
            import(client, &files, password_file.as_deref(), wish, form).await
        }
        CertificateAction::Issue { name, ca, domain, days, key_type, out, force } => {
            let ca = if ca == Signer::Internal { "internal" } else { "self-signed" };
            let deliver = if out.is_some() { "return" } else { "store" };
            let wish = json!({"ca": ca, "domains": domain, "days": days, "keyType": key_type, "deliver": deliver, "force": force});
            let made = client.post(&format!("/api/v1/certificates/{}:issue", encode(&name)), &wish).await?;
            match out {
                Some(folder) => write_files(&folder, &name, &made),
                None => told(&made, "issued", form),
            }
        }
        CertificateAction::Export { name, out } => {
            let chain = plain(client, &format!("/api/v1/certificates/{}/chain", encode(&name))).await?;
            match out {
                Some(file) => std::fs::write(&file, chain)
                    .with_context(|| file.display().to_string())
                    .map_err(Failure::from),
                None => {
                    print(chain.trim_end());
                    Ok(())
                }
            }
        }
        CertificateAction::Renew { name, wait, timeout } => {
            renew(client, &name, wait.then_some(timeout)).await
        }
        CertificateAction::Ca => {
            print(plain(client, "/api/v1/certificate-authority").await?.trim_end());
            Ok(())
        }
    }
}

async fn plain(client: &Client, path: &str) -> Result<String, Failure> {
    let answer = client.send(client.request(Method::GET, path), None).await?;
    Ok(answer.text().await.context("the answer did not come in whole")?)
}

async fn import(
    client: &Client,
    files: &[PathBuf],
    password_file: Option<&Path>,
    mut wish: Value,
    form: Output,
) -> Result<(), Failure> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let mut pem = String::new();
    for file in files {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        match String::from_utf8(bytes) {
            Ok(text) if text.contains("-----BEGIN ") => {
                pem.push_str(&text);
                pem.push('\n');
            }
            Ok(text) => wish["pkcs12"] = BASE64_STANDARD.encode(text).into(),
            Err(binary) => wish["pkcs12"] = BASE64_STANDARD.encode(binary.into_bytes()).into(),
        }
    }
    wish["pem"] = pem.into();
    if let Some(file) = password_file {
        let password = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        wish["password"] = password.trim_end_matches(['\r', '\n']).into();
    }
    let path = "/api/v1/certificates:import";
    let done = match client.post(path, &wish).await {
        Err(Failure::Invalid(why))
            if wish["password"].is_null() && why.contains("send the password along") =>
        {
            let password = rpassword::prompt_password("Password: ").context("the password was not read")?;
            wish["password"] = password.into();
            client.post(path, &wish).await?
        }
        done => done?,
    };
    told(&done, if wish["dryRun"] == true { "would be stored" } else { "stored" }, form)
}

/// What was stored on standard output, what is odd on standard error.
fn told(done: &Value, word: &str, form: Output) -> Result<(), Failure> {
    for warning in done["warnings"].as_array().into_iter().flatten() {
        let hint = warning["hint"].as_str().map(|hint| format!(" ({hint})")).unwrap_or_default();
        talk(format!("warning: {}{hint}", text(&warning["detail"])));
    }
    match form {
        Output::Table | Output::Wide => {
            let replaces = done["replaces"]["notAfter"].as_str();
            let replaces = replaces.map(|at| format!(", in place of one until {at}")).unwrap_or_default();
            let (name, names, until) = (text(&done["name"]), text(&done["names"]), text(&done["notAfter"]));
            print(&format!("certificate {name} {word}: {names}, until {until}{replaces}"));
            Ok(())
        }
        _ => output::value(form, done),
    }
}

fn write_files(folder: &Path, name: &str, made: &Value) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    write(&folder.join(format!("{name}.key")), &text(&made["key"]), 0o600)?;
    write(&folder.join(format!("{name}.pem")), &text(&made["chain"]), 0o644)?;
    if let Some(ca) = made["ca"].as_str() {
        write(&folder.join("ca.pem"), ca, 0o644)?;
    }
    Ok(())
}

fn write(path: &Path, content: &str, mode: u32) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let written = (|| {
        // A file of an earlier one may be open to others.
        let _ = std::fs::remove_file(path);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content.as_bytes())
    })();
    written.with_context(|| path.display().to_string())?;
    print(&path.display().to_string());
    Ok(())
}

async fn renew(client: &Client, name: &str, wait: Option<Duration>) -> Result<(), Failure> {
    let path = format!("/api/v1/certificates/{}", encode(name));
    let at = format!("{path}/status");
    let status = || client.get(&at);
    let before = status().await?;
    let request = client.request(Method::POST, &format!("{path}:renew"));
    client.send(request.header(header::CONTENT_TYPE, "application/json").body("{}"), None).await?;
    let Some(timeout) = wait else {
        talk(format!("{name} is ordered: awe4lb describe certificates {name}"));
        return Ok(());
    };
    let (begin, mut step) = (Instant::now(), String::new());
    loop {
        let now = status().await?;
        let acme = &now["acme"];
        let news = text(&acme["step"]);
        if !news.is_empty() && news != step {
            talk(&news);
            step = news;
        }
        if now["chains"] != before["chains"] && acme["state"] == "idle" {
            print(&format!("certificate {name} renewed, until {}", text(&now["notAfter"])));
            return Ok(());
        }
        if acme["state"] == "failing" && acme["lastError"]["at"] != before["acme"]["lastError"]["at"] {
            let error = &acme["lastError"];
            return Err(Failure::Invalid(format!("{}: {}", text(&error["detail"]), text(&error["hint"]))));
        }
        if begin.elapsed() >= timeout {
            return Err(Failure::Unavailable(format!("{name} is not renewed after {} s", timeout.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}
