//! Writes into `FOLDER/TARGET` what each target starts from: valid inputs, made by the code of today, so that they
//! never lag behind a format. `seeds FOLDER`, from the root of the repository.

mod authority;
mod pem;
mod quic;
mod shape;

use std::{fs, path::Path};

use awe4lb_data_plane::control::cache::{Overlays, Rejections, Snapshot, StoredResource};
use awe4lb_engine::proxy_protocol::{Outgoing, Ssl, Tlv, Version};
use awe4lb_model::{
    document::{self, Format},
    placed::number_locally,
};
use awe4lb_proto::{
    Hash,
    manifest::{self, Manifest},
    resources, v1,
};
// What is instrumented needs the fuzzer's counters to link.
use libfuzzer_sys as _;
use prost::Message;

/// Every field that this version knows.
const FULL: &str = include_str!("seeds/full.yaml");

fn main() {
    let folder = std::env::args().nth(1).expect("usage: seeds FOLDER");
    let put = |target: &str, name: &str, parts: &[&[u8]]| {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("seed-{name}")), parts.concat()).expect("a file");
    };
    let sample = fs::read_to_string("deploy/sample.yaml").expect("deploy/sample.yaml");

    for (name, text) in [("sample", sample.as_str()), ("full", FULL)] {
        let mut node = document::parse(text, Format::Yaml).expect("YAML");
        put("document", &format!("{name}-yaml"), &[b"y", text.as_bytes()]);
        let pem = |file: &str| {
            let label = if file.contains("key") { "PRIVATE KEY" } else { "CERTIFICATE" };
            Ok(format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n"))
        };
        document::inline_files(&mut node, pem).expect("files");
        let json = node.to_json();
        put("document", &format!("{name}-json"), &[b"j", json.to_string().as_bytes()]);
        put("document", &format!("{name}-flow"), &[b"y", document::to_yaml(&json).as_bytes()]);
        put("document", &format!("{name}-toml"), &[b"t", document::to_toml(&json).expect("TOML").as_bytes()]);
        let compiled = document::compile(node).unwrap_or_else(|violations| panic!("{name}: {violations:#?}"));
        let config = number_locally(compiled.config, &compiled.keys);
        let encoded = resources::encode_all(&config).expect("resources");
        for resource in &encoded {
            let bytes = zstd::bulk::decompress(&resource.zstd, 1 << 20).expect("zstd");
            let name = format!("{name}-{}-{}", manifest::kind_word(resource.id.kind), resource.id.name);
            put("resource", &name, &[b"p", &program(&bytes)]);
            put("resource", &format!("{name}-encoded"), &[b"r", &bytes]);
            put("resource", &format!("{name}-zstd"), &[b"z", &resource.zstd]);
        }

        let wanted = Manifest::of(&encoded);
        let assignment = v1::Assignment {
            lineage: "seed".into(),
            epoch: 1,
            sequence: 2,
            manifest_hash: wanted.hash().to_wire(),
            revision: 3,
        };
        let whole = wanted.difference_from(&Manifest::default());
        let mut stream = Vec::new();
        for message in manifest::to_messages(&assignment, v1::Mode::Apply, None, &whole) {
            frame(&mut stream, b'M', &message);
        }
        for chunk in encoded.iter().flat_map(|resource| resource.chunks()) {
            frame(&mut stream, b'c', &chunk);
        }
        let less: Manifest = wanted.entries().skip(1).map(|(id, hash)| (id.clone(), hash)).collect();
        let next = v1::Assignment { sequence: 3, manifest_hash: less.hash().to_wire(), ..assignment.clone() };
        let difference = less.difference_from(&wanted);
        for message in manifest::to_messages(&next, v1::Mode::Apply, Some(wanted.hash()), &difference) {
            frame(&mut stream, b'm', &message);
        }
        put("manifest", name, &[&stream]);

        let snapshot = Snapshot {
            generation: 1,
            manifest: whole
                .upsert
                .iter()
                .map(|(id, hash)| v1::ResourceRef {
                    kind: manifest::kind_to_wire(id.kind),
                    name: id.name.to_string(),
                    hash: hash.to_wire(),
                })
                .collect(),
            resources: encoded
                .iter()
                .map(|resource| StoredResource { hash: resource.hash.to_wire(), data: resource.zstd.clone() })
                .collect(),
            built_hash: Hash::of(b"seed").to_wire(),
            assignment: Some(assignment.clone()),
        };
        put("cache", &format!("{name}-snapshot"), &[b"S", &snapshot.encode_to_vec()]);
        put("cache", &format!("{name}-program"), &[b"Sp", &program(&snapshot.encode_to_vec())]);
        let (overlays, rejections, trial) = small_files(&assignment);
        for (file, bytes) in [("O", overlays), ("R", rejections), ("G", trial)] {
            put("cache", &format!("{name}-{file}"), &[file.as_bytes(), b"p", &program(&bytes)]);
        }
    }

    for (name, server) in [("named", Some("app.example.com")), ("nameless", None)] {
        let hello = client_hello(server);
        put("client_hello", name, &[&records(&hello, hello.len())]);
        put("client_hello", &format!("{name}-in-records"), &[&records(&hello, 40)]);
    }

    put("quic", "hello-of-two", &[b"c\0\x80dc\x80\xff"]);
    put("quic", "backwards", &[b"c\x80\xffc\0\x80"]);
    put("quic", "frames", &[b"i\0\x0d\x01\0\x02\x01\x02\x01\x03\x04\x05\x06\0\x01\x01i\x01\x02\x1c\0"]);
    let packet = quic::initial(true, 7, &quic::crypto(0, &quic::HELLO[..64]));
    put("quic", "raw", &[b"r", &[packet.len() as u8], &packet]);
    for (name, header) in proxy_headers() {
        put("proxy_protocol", name, &[&header, b"rest"]);
    }
    for (name, head) in CHALLENGES {
        put("challenge", name, &[head]);
    }
    for (name, message) in PREAMBLES {
        put("preamble", name, &[message]);
    }
    authority::seeds(&put);
}

/// Of both versions and families, with every value that has a variant of its own.
fn proxy_headers() -> Vec<(&'static str, Vec<u8>)> {
    let v4 = "192.0.2.1:40000".parse().expect("an address");
    let v6 = "[2001:db8::7]:443".parse().expect("an address");
    let ssl = Ssl {
        is_tls: true,
        certificate_on_connection: true,
        certificate_in_session: true,
        verified: true,
        version: Some("TLSv1.3"),
        common_name: Some("alice"),
        cipher: Some("TLS_AES_256_GCM_SHA384"),
        signature_algorithm: Some("RSA-SHA256"),
        key_algorithm: Some("RSA2048"),
    };
    let all = [
        Tlv::Alpn(b"h2"),
        Tlv::Authority("app.example.com"),
        Tlv::UniqueId(b"0123456789abcdef"),
        Tlv::Ssl(ssl),
        Tlv::Netns("blue"),
        Tlv::Other { kind: 0xea, value: b"\x01vpce-1" },
        Tlv::Other { kind: 0x04, value: b"" },
    ];
    let with_checksum = [Tlv::Crc32c, Tlv::Alpn(b"h2")];
    let plain = Outgoing {
        version: Version::V2,
        is_local: false,
        is_datagram: false,
        source: v4,
        destination: v4,
        tlvs: &all,
    };
    let headers = [
        ("line4", Outgoing { version: Version::V1, ..plain }),
        ("line6", Outgoing { version: Version::V1, source: v6, ..plain }),
        ("unknown", Outgoing { version: Version::V1, is_datagram: true, ..plain }),
        ("v4", plain),
        ("v6", Outgoing { destination: v6, tlvs: &with_checksum, ..plain }),
        ("udp", Outgoing { is_datagram: true, tlvs: &[], ..plain }),
        ("local", Outgoing { is_local: true, tlvs: &with_checksum, ..plain }),
    ];
    let written = |header: &Outgoing<'_>| {
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        bytes
    };
    headers.iter().map(|(name, header)| (*name, written(header))).collect()
}

/// Questions for a token, and one that is none.
const CHALLENGES: [(&str, &[u8]); 3] = [
    (
        "asked",
        b"GET /.well-known/acme-challenge/abc-_9 HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\nrest",
    ),
    ("old", b"GET /.well-known/acme-challenge/a HTTP/1.0\r\n\r\n"),
    ("posted", b"GET /.well-known/acme-challenge/a HTTP/1.1\r\nContent-Length: 1\r\n\r\na"),
];

/// As the target `preamble` tells them apart.
const PREAMBLES: [(&str, &[u8]); 14] = [
    ("ssl-request", b"p\0\0\0\x08\x04\xd2\x16\x2f"),
    ("gssenc-request", b"p\0\0\0\x08\x04\xd2\x16\x30"),
    ("cancel", b"p\0\0\0\x10\x04\xd2\x16\x2e\0\0\x66\xb8\xed\xf5\xde\xaa"),
    ("startup", b"p\0\0\0\x21\0\x03\0\0user\0alice\0database\0app\0\0"),
    ("postgres-yes", b"PS"),
    ("postgres-no", b"PN"),
    ("start-tls", b"l\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"),
    ("start-tls-control", b"l\x30\x26\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037\xa0\x07\x30\x05\x04\x031.2"),
    ("start-tls-long", b"l\x30\x84\0\0\0\x25\x02\x01\x01\x77\x84\0\0\0\x1c\x80\x84\0\0\0\x161.3.6.1.4.1.1466.20037"),
    ("bind", b"l\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0"),
    ("ldap-yes", b"L\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\0\x04\0\x04\0"),
    ("ldap-no", b"L\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\0\x04\0"),
    ("greeting", b"k\x07R\0\0\0\x08\0\0\0\0S\0\0\0\x15TimeZone\0Etc/UTC\0K\0\0\0\x0c\0\0\x66\xb8\xed\xf5\xde\xaaZ\0\0\0\x05I"),
    ("greeting-3.2", b"k\x03v\0\0\0\x0c\0\x03\0\x02\0\0\0\0K\0\0\0\x10\0\0\0\x07keykeyke"),
];

fn program(message: &[u8]) -> Vec<u8> {
    let program = shape::take_apart(message).expect("a message");
    assert_eq!(shape::build(&program), message);
    program
}

/// Overlays, rejections, a trial.
fn small_files(assignment: &v1::Assignment) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let overlay = v1::Overlay {
        pool: "app".into(),
        version: 7,
        admin_states: vec![v1::AdminState {
            backend_number: 300,
            state: v1::Admin::Drain.into(),
            until_unix_ms: 1 << 40,
            reason: "work".into(),
        }],
        answers: Vec::new(),
    };
    let result = v1::Result {
        assignment: Some(assignment.clone()),
        phase: v1::Phase::Rejected.into(),
        message: "no".into(),
        ..v1::Result::default()
    };
    // The manifest on trial, and a count.
    let trial = shape::build(&[&b"(\x01"[..], &program(&assignment.encode_to_vec()), b")v\x02\x01"].concat());
    (
        Overlays { overlays: vec![overlay] }.encode_to_vec(),
        Rejections { results: vec![result] }.encode_to_vec(),
        trial,
    )
}

/// As the target `manifest` takes messages apart.
fn frame(stream: &mut Vec<u8>, kind: u8, message: &impl Message) {
    let bytes = message.encode_to_vec();
    let bytes = if kind.is_ascii_uppercase() { program(&bytes) } else { bytes };
    let length = u16::try_from(bytes.len()).expect("a message has at most 64 KiB");
    stream.push(kind);
    stream.extend(length.to_be_bytes());
    stream.extend(bytes);
}

/// A hello of TLS 1.3 that rustls would accept.
fn client_hello(server: Option<&str>) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = server {
        let entry = [&[0][..], &counted(name.as_bytes())].concat();
        extension(&mut extensions, 0, &counted(&entry));
    }
    // Groups, signatures, versions, a key share of X25519, application protocols.
    extension(&mut extensions, 10, &counted(&[0, 29]));
    extension(&mut extensions, 13, &counted(&[4, 3, 8, 4]));
    extension(&mut extensions, 43, &[4, 3, 4, 3, 3]);
    extension(&mut extensions, 51, &counted(&[&[0, 29][..], &counted(&[9; 32])].concat()));
    extension(&mut extensions, 16, &counted(b"\x02h2\x08http/1.1"));
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0x13, 1, 0xc0, 0x2b, 1, 0]);
    body.extend(counted(&extensions));
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

fn extension(into: &mut Vec<u8>, number: u16, content: &[u8]) {
    into.extend(number.to_be_bytes());
    into.extend(counted(content));
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes()[..], bytes].concat()
}

fn records(handshake: &[u8], each: usize) -> Vec<u8> {
    handshake.chunks(each).flat_map(|piece| [&[22, 3, 1][..], &counted(piece)].concat()).collect()
}
