//! Certificates, keys and answers to start from, made by `openssl` anew each time.

use std::{fs, process::Command};

use crate::pem::{PASSWORD, take_apart};

const LEAF: &str = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:a.test,IP:192.0.2.1\n\
                    authorityInfoAccess=OCSP;URI:http://127.0.0.1:1/\ntlsfeature=status_request\n";

/// `put(TARGET, NAME, PARTS)` for the targets `import` and `ocsp`.
pub fn seeds(put: &dyn Fn(&str, &str, &[&[u8]])) {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let openssl = |arguments: &str| {
        let ran =
            Command::new("openssl").args(arguments.split(' ')).current_dir(at).output().expect("openssl");
        assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    let read = |file: &str| fs::read(at.join(file)).expect(file);
    let text = |file: &str| fs::read_to_string(at.join(file)).expect(file);

    fs::write(at.join("leaf.ext"), LEAF).expect("a file");
    fs::write(at.join("index"), "V\t491231235959Z\t\t1001\tunknown\t/CN=a.test\n").expect("a file");
    let ca = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 3650 -subj /CN=Seed";
    openssl(ca);
    openssl("ecparam -name prime256v1 -genkey -noout -out leaf.sec1");
    openssl("pkey -in leaf.sec1 -out leaf.key");
    openssl("req -new -key leaf.key -out leaf.csr -subj /CN=a.test");
    openssl(
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -set_serial 0x1001 -days 365 -extfile leaf.ext -out leaf.pem",
    );
    let chain = [text("leaf.pem"), text("ca.pem")].concat();

    openssl(&format!("pkcs8 -topk8 -in leaf.key -out leaf.p8 -passout pass:{PASSWORD}"));
    openssl(&format!("pkcs8 -topk8 -scrypt -in leaf.key -out leaf.scrypt -passout pass:{PASSWORD}"));
    for key in ["leaf.key", "leaf.sec1", "leaf.p8", "leaf.scrypt"] {
        let all = [chain.as_str(), &text(key)].concat();
        put("import", &format!("{key}-text"), &[b"t", all.as_bytes()]);
        put("import", &format!("{key}-der"), &[b"d", &take_apart(&all)]);
    }
    let archives =
        [("plain", "-keypbe NONE -certpbe NONE -nomac"), ("sealed", "-iter 1 -nomac"), ("whole", "-iter 1")];
    for (name, options) in archives {
        openssl(&format!(
            "pkcs12 -export -in leaf.pem -inkey leaf.key -certfile ca.pem -name web -out p12 -passout pass:{PASSWORD} {options}"
        ));
        put("import", name, &[b"p", &read("p12")]);
    }

    openssl("ocsp -issuer ca.pem -cert leaf.pem -no_nonce -reqout question");
    let blocks = take_apart(&chain);
    let length = u16::try_from(blocks.len()).expect("short").to_be_bytes();
    for (name, options) in [("by-name", ""), ("by-key", " -resp_key_id"), ("bare", " -resp_no_certs")] {
        openssl(&format!(
            "ocsp -index index -CA ca.pem -rsigner ca.pem -rkey ca.key -reqin question -respout answer -ndays 7{options}"
        ));
        put("ocsp", name, &[&length, &blocks, &read("answer")]);
    }
}
