//! A certificate authority and its OCSP responder, by openssl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

/// A key that is made quickly.
pub const CURVE: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

/// In a folder of its own.
pub struct Authority {
    dir: tempfile::TempDir,
}

/// Answers until it is dropped.
pub struct Responder(Child);

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Authority {
    /// With such a key.
    pub fn new(key: &str) -> Self {
        let this = Self { dir: tempfile::tempdir().expect("a folder") };
        this.run(&format!(
            "req -x509 -newkey {key} -nodes -keyout ca.key -out ca.pem -subj /CN=Test -days 30"
        ));
        this
    }

    /// Where everything is: `NAME.pem`, `NAME.key`.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Of a file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The text of a file.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).expect("a file")
    }

    /// The certificate of this name, and of those that signed it.
    pub fn chain(&self, name: &str) -> String {
        self.read(&format!("{name}.pem")) + &self.read("ca.pem")
    }

    /// One command of openssl, in the folder.
    pub fn run(&self, command: &str) {
        let output = Command::new("openssl").current_dir(self.path()).args(command.split(' ')).output();
        let output = output.expect("openssl is installed");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "openssl {command}: {text}");
    }

    /// A certificate with these extensions.
    pub fn issue(&self, name: &str, serial: &str, extensions: &str) {
        fs::write(self.file("extensions"), extensions).expect("a file");
        self.run(&format!(
            "req -new -newkey {CURVE} -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        self.run(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial 0x{serial} -days 20 -extfile extensions \
             -out {name}.pem"
        ));
    }

    /// What responders know: of each serial whether it is revoked.
    pub fn know(&self, certificates: &[(&str, bool)]) {
        let line = |(serial, is_revoked): &(&str, bool)| {
            let (flag, revoked) = if *is_revoked { ("R", "250101000000Z") } else { ("V", "") };
            format!("{flag}\t491231235959Z\t{revoked}\t{serial}\tunknown\t/CN=x{serial}\n")
        };
        fs::write(self.file("index"), certificates.iter().map(line).collect::<String>()).expect("a file");
    }

    /// A responder at this port, with the key of `signer`.
    pub fn respond(&self, port: u16, signer: &str) -> Responder {
        let command = format!(
            "ocsp -port {port} -index index -CA ca.pem -rsigner {signer}.pem -rkey {signer}.key -ndays 7"
        );
        let log = fs::File::create(self.file(&format!("log-{port}"))).expect("a file");
        let child = Command::new("openssl")
            .current_dir(self.path())
            .args(command.split(' '))
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn();
        let responder = Responder(child.expect("openssl is installed"));
        // A connection to try it would hold up all others: it serves one after another.
        for _ in 0..1_000 {
            if self.read(&format!("log-{port}")).contains("ACCEPT") {
                return responder;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("openssl does not listen at {port}");
    }
}
