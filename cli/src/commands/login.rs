//! Signing in: a password becomes an API token in a private file.

use std::path::Path;

use anyhow::Context as _;
use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::{
    args::Login,
    client::{Client, json as body_of},
    context::Context as LoginFile,
    failure::Failure,
    print, talk,
};

/// How long the token of a login lives.
const LIFETIME: &str = "90d";

pub async fn login(client: &Client, args: &Login) -> Result<(), Failure> {
    let (cookie, role) = sign_in(client, args).await?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let name = format!("{}@{} {}", args.user, host.trim(), at.as_millis());
    let name: String = name.chars().take(64).collect();
    let wish = json!({"name": name, "role": role, "expiresIn": LIFETIME});
    let request = client
        .anonymous(Method::POST, "/api/v1/tokens")
        .header(header::COOKIE, &cookie)
        .header(header::ORIGIN, &client.server)
        .header(header::CONTENT_TYPE, "application/json")
        .body(wish.to_string());
    let made = match client.send(request, None).await {
        Ok(answer) => body_of(answer).await?,
        Err(Failure::NotAllowed(_)) => {
            let why = "only an admin may make tokens: ask one for a token, and give it as --token-file";
            return Err(Failure::NotAllowed(why.to_owned()));
        }
        Err(failure) => return Err(failure),
    };
    // The session has served its purpose.
    let end = client.anonymous(Method::DELETE, "/api/v1/session").header(header::COOKIE, &cookie);
    let _ = client.send(end.header(header::ORIGIN, &client.server), None).await;
    let login = LoginFile {
        server: client.server.clone(),
        user: args.user.clone(),
        token: made["token"].as_str().unwrap_or_default().to_owned(),
        ca_certificate: client.ca_certificate.clone(),
    };
    let path = login.save()?;
    talk(format!("signed in at {} as {} ({role}); token in {}", client.server, args.user, path.display()));
    Ok(())
}

/// A session's cookie, and the role.
async fn sign_in(client: &Client, args: &Login) -> Result<(String, String), Failure> {
    let session = client.anonymous(Method::GET, "/api/v1/session");
    let needs_bootstrap = match client.send(session, None).await {
        Ok(answer) => body_of(answer).await?["bootstrapNeeded"] == Value::Bool(true),
        Err(Failure::NotAllowed(_)) => false,
        Err(failure) => return Err(failure),
    };
    let (path, wish) = if needs_bootstrap {
        let file = args.bootstrap_file.as_deref().context(
            "there is no admin yet: --bootstrap-file DATA/bootstrap-code of the control plane makes the first one",
        )?;
        let code = secret_in(file, "--bootstrap-file")?;
        let password = match &args.password_file {
            Some(file) => secret_in(file, "--password-file")?,
            None => made_password()?,
        };
        ("/api/v1/session:bootstrap", json!({"code": code, "user": args.user, "password": password}))
    } else {
        let password = match &args.password_file {
            Some(file) => secret_in(file, "--password-file")?,
            None => rpassword::prompt_password(format!("Password of {}: ", args.user))
                .context("read the password")?,
        };
        ("/api/v1/session", json!({"user": args.user, "password": password}))
    };
    let request = client.anonymous(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
    let answer = client.send(request.body(wish.to_string()), None).await?;
    let cookie = answer.headers().get(header::SET_COOKIE).and_then(|value| value.to_str().ok());
    let cookie =
        cookie.and_then(|value| value.split(';').next()).context("the answer sets no cookie")?.to_owned();
    let role = body_of(answer).await?["role"].as_str().unwrap_or_default().to_owned();
    if needs_bootstrap && args.password_file.is_none() {
        talk(format!("made the admin {:?}; this is the password, shown once:", args.user));
        print(wish["password"].as_str().unwrap_or_default());
    }
    Ok((cookie, role))
}

fn secret_in(path: &Path, flag: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{flag} {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn made_password() -> Result<String, Failure> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Other(format!("no randomness: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
