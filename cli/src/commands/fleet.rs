//! Nodes, tokens, admin states.

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::get::NODES;
use crate::{
    args::{BackendArgs, NodeAction, Output, TokenAction},
    client::{Client, encode},
    failure::Failure,
    output, print, talk,
};

pub async fn nodes(client: &Client, action: Option<NodeAction>, form: Output) -> Result<(), Failure> {
    let (name, verb) = match &action {
        None => return output::list(form, &client.list("/api/v1/nodes").await?, NODES),
        Some(NodeAction::Drain { name }) => (name, "drain"),
        Some(NodeAction::Undrain { name }) => (name, "undrain"),
        Some(NodeAction::Ban { name }) => (name, "ban"),
        Some(NodeAction::Forget { name }) => (name, "forget"),
    };
    let answer = client.post(&format!("/api/v1/nodes/{}:{verb}", encode(name)), &Value::Null).await?;
    talk(format!("{name}: {verb}"));
    match form {
        Output::Json | Output::Yaml if !answer.is_null() => output::value(form, &answer),
        _ => Ok(()),
    }
}

pub async fn join_token(
    client: &Client,
    uses: u32,
    expires_in: &str,
    labels: &[String],
    form: Output,
) -> Result<(), Failure> {
    let mut by_key = Map::new();
    for label in labels {
        let (key, value) = label
            .split_once('=')
            .ok_or_else(|| Failure::Invalid(format!("--label {label:?}: write key=value")))?;
        by_key.insert(key.to_owned(), value.into());
    }
    let wish = json!({"uses": uses, "expiresIn": expires_in, "labels": by_key});
    let made = client.post("/api/v1/join-tokens", &wish).await?;
    if matches!(form, Output::Json | Output::Yaml) {
        return output::value(form, &made);
    }
    let text = |field: &str| output::text(&made[field]);
    talk(format!("good for {} nodes until {}; a node joins with", uses, text("expiresAt")));
    talk(format!(
        "  awe4lb-data-plane --control-plane {} --join-token-file FILE --name NAME",
        text("controlPlane")
    ));
    print(&text("token"));
    Ok(())
}

pub async fn tokens(client: &Client, action: TokenAction, form: Output) -> Result<(), Failure> {
    match action {
        TokenAction::Create { name, role, push, expires_in } => {
            let mut wish = json!({"name": name, "expiresIn": expires_in});
            let mut may = role.clone();
            match push.as_deref().map(|push| push.split_once('/').ok_or(push)) {
                None => wish["role"] = role.into(),
                Some(Ok((pool, source))) => {
                    wish["push"] = json!({"pool": pool, "source": source});
                    may = format!("pushes to {pool}/{source}");
                }
                Some(Err(text)) => return Err(Failure::Invalid(format!("{text:?}: write POOL/SOURCE"))),
            }
            let made = client.post("/api/v1/tokens", &wish).await?;
            if matches!(form, Output::Json | Output::Yaml) {
                return output::value(form, &made);
            }
            talk(format!("token {} ({may}), shown once:", output::text(&made["id"])));
            print(&output::text(&made["token"]));
            Ok(())
        }
        TokenAction::List => super::get::get(client, crate::args::Kind::Tokens, None, form).await,
        TokenAction::Revoke { id } => {
            client
                .send(client.request(Method::DELETE, &format!("/api/v1/tokens/{}", encode(&id))), None)
                .await?;
            talk(format!("{id}: revoked"));
            Ok(())
        }
        TokenAction::Join { uses, expires_in, labels } => {
            join_token(client, uses, &expires_in, &labels, form).await
        }
    }
}

pub async fn admin(client: &Client, verb: &str, args: &BackendArgs, form: Output) -> Result<(), Failure> {
    let (pool, backend) = args
        .backend
        .split_once('/')
        .ok_or_else(|| Failure::Invalid(format!("{:?}: write POOL/BACKEND", args.backend)))?;
    let path = format!("/api/v1/pools/{}/backends/{}:{verb}", encode(pool), encode(backend));
    let view = client.post(&path, &json!({"deadline": args.deadline, "reason": args.reason})).await?;
    if matches!(form, Output::Json | Output::Yaml) {
        return output::value(form, &view);
    }
    let until = view["adminUntil"].as_str().map(|until| format!(" until {until}")).unwrap_or_default();
    talk(format!("{}: {}{until}", args.backend, output::text(&view["admin"])));
    Ok(())
}
