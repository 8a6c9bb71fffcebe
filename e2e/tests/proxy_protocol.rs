//! PROXY headers between real ones: HAProxy says who the client is, and nginx is told.

use awe4lb_e2e::{
    at,
    fleet::Fleet,
    free_port, have,
    process::{Program, run},
    servers::listening,
};
use serde_json::json;

#[test]
fn haproxy_in_front_and_nginx_behind_agree_on_the_client() {
    if !["nginx", "haproxy", "curl"].iter().all(|tool| have(tool)) {
        return;
    }
    let fleet = Fleet::start(1);
    let (entrance, nginx, in_front) = (free_port(), free_port(), [free_port(), free_port()]);
    let folder = fleet.folder().join("proxies");
    std::fs::create_dir_all(&folder).expect("a folder");
    let dir = folder.display();

    let page = "return 200 '$proxy_protocol_addr to $proxy_protocol_server_port\\n';";
    let conf = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr;\nevents {{ }}\n\
         http {{\n access_log off;\n client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c;\n \
         uwsgi_temp_path {dir}/d; scgi_temp_path {dir}/e;\n \
         server {{ listen 127.0.0.1:{nginx} proxy_protocol; location / {{ {page} }} }}\n}}\n"
    );
    std::fs::write(folder.join("nginx.conf"), conf).expect("a file");
    let arguments = ["-c".to_owned(), format!("{dir}/nginx.conf"), "-p".to_owned(), dir.to_string()];
    let _nginx = Program::start("nginx", &folder, "nginx", arguments);
    listening(([127, 0, 0, 1], nginx).into());

    let node = at(fleet.nodes[0].ip, entrance);
    let side = |name: &str, port: u16, send: &str| {
        format!("listen {name}\n bind 127.0.0.1:{port}\n server node {node} {send}\n")
    };
    let conf = format!(
        "defaults\n mode tcp\n timeout client 10s\n timeout server 10s\n timeout connect 5s\n{}{}",
        side("one", in_front[0], "send-proxy"),
        side("two", in_front[1], "send-proxy-v2")
    );
    std::fs::write(folder.join("haproxy.cfg"), conf).expect("a file");
    let arguments = ["-db".to_owned(), "-f".to_owned(), format!("{dir}/haproxy.cfg")];
    let _haproxy = Program::start("haproxy", &folder, "haproxy", arguments);
    in_front.iter().for_each(|port| listening(([127, 0, 0, 1], *port).into()));

    let pool = |name: &str, send: &str| {
        json!({"name": name, "proxyProtocol": {"send": send}, "healthCheck": {"type": "tcp", "interval": "1s"},
               "backends": [{"name": "a", "address": format!("127.0.0.1:{nginx}")}]})
    };
    fleet.apply(&json!({
        "version": 1,
        "listeners": [{
            "name": "l", "bind": [format!("*:{entrance}")], "proxyProtocol": {"from": ["127.0.0.0/8"]},
            "rules": [{"name": "nine", "match": {"client": ["127.0.0.9"]}, "pool": "one"}, {"name": "all", "pool": "two"}],
        }],
        "pools": [pool("one", "v1"), pool("two", "v2")],
    }));
    for port in in_front {
        for client in ["127.0.0.9", "127.0.0.10"] {
            let url = format!("http://127.0.0.1:{port}/");
            let (ok, page, why) = run("curl", &["-sS", "-m", "5", "--interface", client, &url]);
            assert!(ok, "{why}");
            // Where the client connected to, which is HAProxy, goes all the way, too.
            assert_eq!(page.trim(), format!("{client} to {port}"));
        }
    }
}
