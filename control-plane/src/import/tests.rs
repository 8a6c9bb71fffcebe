//! With files as OpenSSL makes them.

use std::{path::Path, process::Command};

use proptest::prelude::*;

use super::*;

/// A folder with `root`, `middle` (signed by it) and `leaf` (signed by that): each with .pem and .key.
struct Made(tempfile::TempDir);

impl Made {
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        let new = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let of = |name: &str| {
            ["-subj".to_owned(), format!("/CN={name}"), "-keyout".to_owned(), format!("{name}.key")]
        };
        let own = |name: &str, more: &[&str]| {
            let of = of(name);
            let of: Vec<&str> = of.iter().map(String::as_str).collect();
            made.openssl(&[&new[..], &of, more].concat());
        };
        let ca = ["-addext", "basicConstraints=critical,CA:TRUE"];
        own("root", &[&["-x509", "-out", "root.pem"][..], &ca].concat());
        own("middle", &[&["-out", "middle.csr"][..], &ca].concat());
        own("leaf", &["-out", "leaf.csr", "-addext", "subjectAltName=DNS:a.test"]);
        for (name, by) in [("middle", "root"), ("leaf", "middle")] {
            let (csr, ca, key, out) =
                (format!("{name}.csr"), format!("{by}.pem"), format!("{by}.key"), format!("{name}.pem"));
            made.openssl(&[
                "x509",
                "-req",
                "-in",
                &csr,
                "-CA",
                &ca,
                "-CAkey",
                &key,
                "-copy_extensions",
                "copy",
                "-out",
                &out,
            ]);
        }
        made
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.path().join(file)).unwrap()
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path().join(file)).unwrap()
    }

    /// Leaf and what is above it, as it must come out.
    fn chain(&self) -> Vec<Vec<u8>> {
        ["leaf.pem", "middle.pem"].map(|file| der(&self.text(file)).remove(0)).into()
    }
}

fn der(pem: &str) -> Vec<Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()).map(|block| block.unwrap().contents).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T, Unreadable>) -> &'static str {
    result.unwrap_err().code
}

#[test]
fn pem_in_any_order_and_of_every_kind() {
    let made = Made::new();
    made.openssl(&["pkey", "-in", "leaf.key", "-traditional", "-out", "sec1.key"]);
    made.openssl(&["pkcs8", "-topk8", "-in", "leaf.key", "-passout", "pass:geheim", "-out", "pbes2.key"]);
    made.openssl(&[
        "pkcs8",
        "-topk8",
        "-in",
        "leaf.key",
        "-v1",
        "PBE-SHA1-3DES",
        "-passout",
        "pass:geheim",
        "-out",
        "old.key",
    ]);
    let certificates =
        format!("{}{}{}", made.text("root.pem"), made.text("middle.pem"), made.text("leaf.pem"));
    for (key, password) in [("leaf.key", None), ("sec1.key", None), ("pbes2.key", Some("geheim"))] {
        let bundle = read(&format!("{}{certificates}", made.text(key)), None, password).unwrap();
        assert_eq!(der(&bundle.chain_pem), made.chain(), "{key}");
        assert_eq!(bundle.warnings, []);
        assert!(!bundle.key.0.contains("ENCRYPTED"));
    }
    let old = format!("{}{certificates}", made.text("old.key"));
    match read(&old, None, Some("geheim")) {
        Ok(bundle) => assert_eq!(der(&bundle.chain_pem), made.chain()),
        Err(error) => assert!(error.hint.contains("openssl pkey"), "{error:?}"),
    }
    let encrypted = format!("{}{certificates}", made.text("pbes2.key"));
    assert_eq!(code(read(&encrypted, None, None)), "encrypted-key");
    assert_eq!(code(read(&encrypted, None, Some("falsch"))), "encrypted-key");
    assert_eq!(code(read(&certificates, None, None)), "missing-key");
    assert_eq!(code(read(&made.text("leaf.key"), None, None)), "missing-chain");
    let other = format!("{}{}", made.text("root.key"), made.text("leaf.pem"));
    assert_eq!(code(read(&other, None, None)), "key-does-not-fit");
    let ancient = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
    assert!(read(ancient, None, None).unwrap_err().hint.contains("openssl pkey"));
}

#[test]
fn pkcs12_as_openssl_writes_it_now_and_as_it_did_before() {
    let made = Made::new();
    std::fs::write(
        made.path().join("above.pem"),
        format!("{}{}", made.text("middle.pem"), made.text("root.pem")),
    )
    .unwrap();
    let export = [
        "pkcs12",
        "-export",
        "-in",
        "leaf.pem",
        "-inkey",
        "leaf.key",
        "-certfile",
        "above.pem",
        "-passout",
        "pass:geheim",
    ];
    made.openssl(&[&export[..], &["-out", "new.p12"]].concat());
    made.openssl(&[&export[..], &["-legacy", "-out", "legacy.p12"]].concat());
    made.openssl(&[&export[..9], &["pass:", "-out", "open.p12"]].concat());
    for (file, password) in [("new.p12", Some("geheim")), ("legacy.p12", Some("geheim")), ("open.p12", None)]
    {
        let bundle =
            read("", Some(&made.bytes(file)), password).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(der(&bundle.chain_pem), made.chain(), "{file}");
    }
    let wrong = read("", Some(&made.bytes("new.p12")), Some("falsch")).unwrap_err();
    assert!(wrong.detail.contains("password"), "{wrong:?}");
    assert_eq!(code(read("", Some(b"no archive"), None)), "bad-pkcs12");
}

#[test]
fn what_is_odd_is_told() {
    let made = Made::new();
    let codes = |pem: String| {
        let bundle = read(&pem, None, None).unwrap();
        bundle.warnings.iter().map(|warning| warning.code).collect::<Vec<_>>()
    };
    let leaf = format!("{}{}", made.text("leaf.key"), made.text("leaf.pem"));
    assert_eq!(codes(leaf.clone()), ["chain-incomplete"]);
    assert_eq!(codes(format!("{leaf}{}", made.text("middle.pem"))), [] as [&str; 0]);
    // Signed by itself: nothing is missing.
    assert_eq!(codes(format!("{}{}", made.text("root.key"), made.text("root.pem"))), [] as [&str; 0]);
    let other = Made::new();
    let strange = format!("{leaf}{}{}", made.text("middle.pem"), other.text("leaf.pem"));
    assert_eq!(codes(strange), ["unused-certificates"]);
}

/// Every byte of real files once turned: an answer, and no panic.
#[test]
fn damaged_files_never_panic() {
    let made = Made::new();
    let plain = ["-nomac", "-certpbe", "NONE", "-keypbe", "NONE", "-passout", "pass:", "-out", "plain.p12"];
    made.openssl(&[&["pkcs12", "-export", "-in", "leaf.pem", "-inkey", "leaf.key"][..], &plain].concat());
    let sealed = [
        "pkcs8",
        "-topk8",
        "-iter",
        "1",
        "-in",
        "leaf.key",
        "-outform",
        "der",
        "-passout",
        "pass:x",
        "-out",
        "sealed.der",
    ];
    made.openssl(&sealed);
    let (archive, sealed) = (made.bytes("plain.p12"), made.bytes("sealed.der"));
    assert!(read("", Some(&archive), None).is_ok());
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x81;
        let _ = read("", Some(&damaged), None);
    }
    for at in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 0x81;
        let key = super::chain::pem_of(&damaged).replace("CERTIFICATE", "ENCRYPTED PRIVATE KEY");
        assert!(read(&(made.text("leaf.pem") + &key), None, Some("x")).is_err(), "byte {at}");
    }
    let der = der(&made.text("leaf.pem")).remove(0);
    assert!(read("", Some(&der), None).unwrap_err().hint.contains("-inform der"));
}

#[test]
fn a_key_that_takes_minutes_to_decrypt_is_refused() {
    let made = Made::new();
    // Too many rounds; and half a gibibyte, in 32 pieces that are small enough.
    for work in ["-iter 3000000", "-scrypt -scrypt_N 16384 -scrypt_r 8 -scrypt_p 32"] {
        let work: Vec<&str> = work.split(' ').collect();
        let into = ["pkcs8", "-topk8", "-in", "leaf.key", "-passout", "pass:x", "-out", "slow.key"];
        made.openssl(&[&into[..], &work].concat());
        let error = read(&(made.text("leaf.pem") + &made.text("slow.key")), None, Some("x")).unwrap_err();
        assert!(error.detail.contains("too much work"), "{error:?}");
    }
    let error = read(&made.text("leaf.key").repeat(9), None, None).unwrap_err();
    assert_eq!(error.code, "too-large", "{error:?}");
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(text in "\\PC{0,400}", bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&text, Some(&bytes), Some("x"));
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        prop_assert!(read(&pem, None, None).is_err());
    }
}
