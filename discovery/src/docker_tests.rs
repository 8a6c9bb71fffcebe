use awe4lb_model::discovery::ContainerApi;

use super::*;

/// As Podman 4.3 says it.
const PODMAN: &str = r#"[{"Id":"c72335686e323852306efbcca8e6ffe970a99b4c3474b0b9d1789dcb17e63a23","Names":["/t"],"Image":"localhost/bb:1",
    "Command":"/bin/busybox httpd -f -p 8080 -h /www","Created":1795877635,"Ports":[{"PrivatePort":8080,"PublicPort":18080,"Type":"tcp"}],
    "Labels":{"awe4lb.enable":"true","awe4lb.weight":"3"},"State":"running","Status":"Up Less than a second","NetworkSettings":
    {"Networks":{"podman":{"IPAMConfig":null,"Aliases":["c72335686e32"],"IPAddress":"10.88.0.4","GlobalIPv6Address":""}}},"Mounts":[]}]"#;

/// As Docker 24 says it.
const DOCKER: &str = r#"[
    {"Id":"b1","Names":["/web-2"],"Image":"nginx","Labels":{"app":"web"},"State":"running","Status":"Up 2 hours (healthy)",
     "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8081,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8081,"Type":"tcp"}],
     "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.3","GlobalIPv6Address":""}}}},
    {"Id":"b2","Names":["/web-1"],"Image":"nginx","Labels":{"app":"web"},"State":"running","Status":"Up 2 hours",
     "Ports":[{"IP":"10.1.2.3","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"}],
     "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}},
    {"Id":"b3","Names":["/web-3"],"Image":"nginx","Labels":{"app":"web"},"State":"running","Status":"Up 5 seconds (health: starting)",
     "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8082,"Type":"tcp"}]},
    {"Id":"b4","Names":["/web-4"],"Image":"nginx","Labels":{"app":"web"},"State":"running","Status":"Up 3 hours","Ports":[]},
    {"Id":"b5","Names":["/dns"],"Image":"knot","Labels":{"app":"dns","awe4lb.port":"53/udp"},"State":"running","Status":"Up 3 hours",
     "Ports":[{"IP":"0.0.0.0","PrivatePort":53,"PublicPort":5300,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":53,"PublicPort":5301,"Type":"udp"}]},
    {"Id":"b6","Names":["/db"],"Labels":null,"State":"exited","Status":"Exited (0)"}]"#;

fn source(network: Option<&str>) -> DockerSource {
    let address = ApiAddress::Unix("/var/run/docker.sock".into());
    DockerSource {
        api: ContainerApi { address, tls: Default::default(), max_bytes: 1 },
        network: network.map(Into::into),
        port: None,
        host: None,
    }
}

fn found(source: &DockerSource, select: &str, said: &str) -> (Vec<String>, Vec<String>) {
    let select = Some(select).filter(|text| !text.is_empty()).map(|text| text.parse().unwrap());
    let answer = answer(source, select.as_ref(), serde_json::from_str(said).unwrap(), &BTreeSet::new());
    (answer.endpoints.iter().map(|one| one.address.to_string()).collect(), answer.rejected)
}

#[test]
fn podman_publishes_and_has_networks() {
    let (places, rejected) = found(&source(None), "awe4lb.enable=true", PODMAN);
    assert_eq!((places, rejected.len()), (vec!["127.0.0.1:18080".to_owned()], 0));
    assert_eq!(found(&source(Some("podman")), "", PODMAN).0, ["10.88.0.4:8080"]);
    assert!(found(&source(Some("other")), "", PODMAN).1[0].contains("container t: it is not in the network"));
    let list: Vec<Value> = serde_json::from_str(PODMAN).unwrap();
    assert_eq!(answer(&source(None), None, list, &BTreeSet::new()).endpoints[0].weight, Some(3));
}

#[test]
fn docker_says_where_it_publishes_and_who_is_not_ready() {
    let (places, rejected) = found(&source(None), "app=web", DOCKER);
    assert_eq!(places, ["10.1.2.3:8080", "127.0.0.1:8081"]);
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert!(rejected[0].contains("container web-4: it publishes no port"));
    let remote = DockerSource {
        api: ContainerApi {
            address: ApiAddress::Url("https://engine.internal:2376".into()),
            ..source(None).api
        },
        ..source(None)
    };
    assert_eq!(found(&remote, "app=web", DOCKER).0, ["10.1.2.3:8080", "engine.internal:8081"]);
    let told = DockerSource { host: Some("10.9.9.9".into()), ..source(None) };
    assert_eq!(found(&told, "container=web-2", DOCKER).0, ["10.9.9.9:8081"]);
}

#[test]
fn of_several_ports_one_has_to_be_named() {
    assert_eq!(found(&source(None), "app=dns", DOCKER).0, ["127.0.0.1:5301"], "by its label");
    let (places, rejected) = found(&source(Some("bridge")), "container=web-1", DOCKER);
    assert!(places.is_empty() && rejected[0].contains("[80, 443]"), "{rejected:?}");
    let port = Some(ContainerPort { number: 443, transport: None });
    assert_eq!(
        found(&DockerSource { port, ..source(Some("bridge")) }, "container=web-1", DOCKER).0,
        ["172.17.0.2:443"]
    );
    let (places, rejected) = found(&DockerSource { port, ..source(None) }, "container=web-1", DOCKER);
    assert!(places.is_empty() && rejected[0].contains("443 is not published"), "{rejected:?}");
}

#[test]
fn labels_that_make_no_sense_spoil_their_container_alone() {
    let said = DOCKER.replace("\"app\":\"dns\"", "\"app\":\"dns\",\"awe4lb.weight\":\"heavy\"");
    let (places, rejected) = found(&source(None), "app in (dns, web)", &said);
    assert_eq!((places.len(), rejected.len()), (2, 2), "{rejected:?}");
    assert!(rejected.iter().any(|why| why.contains("awe4lb.weight is \"heavy\"")), "{rejected:?}");
}

#[test]
fn a_container_that_podman_calls_ill_only_when_asked_does_not_count() {
    let ill = BTreeSet::from(["c72335686e323852306efbcca8e6ffe970a99b4c3474b0b9d1789dcb17e63a23"]);
    let answer = answer(&source(None), None, serde_json::from_str(PODMAN).unwrap(), &ill);
    assert!(answer.endpoints.is_empty() && answer.rejected.is_empty(), "{answer:?}");
}

#[test]
fn a_malformed_item_is_told_and_the_others_count() {
    let said = DOCKER.replacen('[', r#"[5, {"Id": "bad", "Ports": [{"PrivatePort": 99999}]},"#, 1);
    let (places, rejected) = found(&source(None), "app=web", &said);
    assert_eq!(places, ["10.1.2.3:8080", "127.0.0.1:8081"]);
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    assert!(rejected[1].contains("99999"), "{rejected:?}");
}

/// An engine behind a unix socket that refuses its events so often before it gives them. When somebody listens, something happens.
async fn engine(path: std::path::PathBuf, refusals: usize) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            if head[..read].starts_with(b"GET /events") {
                // Refused as by an engine that goes away: the connection ends.
                if count.fetch_add(1, SeqCst) >= refusals {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}\n\r\n")
                        .await;
                    tokio::spawn(async move { stream.read(&mut [0]).await });
                }
            } else {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]")
                    .await;
            }
        }
    });
    asked
}

/// What started just after an engine was back was seen only a whole interval later: the stream of events was not opened again.
#[tokio::test]
async fn events_that_are_refused_once_are_asked_for_again() {
    for (refusals, is_heard) in [(0, true), (1, true), (2, true), (9, false)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let asked = engine(path.clone(), refusals).await;
        let address = ApiAddress::Unix(path.to_str().unwrap().into());
        let api = ContainerApi { address, tls: Default::default(), max_bytes: 100_000 };
        let source = DockerSource { api, network: None, port: None, host: None };
        let allowed = Arc::new(Allowed { folders: vec![dir.path().into()], ..Allowed::default() });
        let mut docker = Docker::default();
        // As long as it is asked again, and at last something is told.
        let told = async {
            loop {
                docker.ask(&source, None, &allowed).await.unwrap();
                docker.changed().await;
                if matches!(docker.events, Some(Events::Open(_))) {
                    return;
                }
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(5), told).await.is_ok();
        assert_eq!(heard, is_heard, "{refusals} refusals");
        let asked = asked.load(std::sync::atomic::Ordering::SeqCst);
        // A proxy that never gives events is not asked for them over and over.
        assert!(asked <= refusals.min(5) + 1, "{asked} times with {refusals} refusals");
    }
}
