//! Files that people import. The first byte: PEM as it is (`t`), blocks whose content is DER, which no fuzzer would find
//! through base64 (`d`, see `pem`), PKCS#12 (`p`).
#![no_main]

#[allow(dead_code, unused_imports, reason = "the control plane uses all of it")]
#[path = "../../control-plane/src/import/mod.rs"]
mod import;
#[path = "../pem.rs"]
mod pem;

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((kind, content)) = bytes.split_first() else { return Corpus::Reject };
    let read = match kind {
        b't' => match std::str::from_utf8(content) {
            Ok(text) => import::read(text, None, Some(pem::PASSWORD)),
            Err(_) => return Corpus::Reject,
        },
        b'd' => import::read(&pem::text(content), None, Some(pem::PASSWORD)),
        b'p' => import::read("", Some(content), Some(pem::PASSWORD)),
        _ => return Corpus::Reject,
    };
    if let Ok(bundle) = read {
        // What was put in order stays so.
        let text = format!("{}{}", bundle.chain_pem, bundle.key.0);
        let again = import::read(&text, None, None).expect("what was read");
        assert_eq!((again.chain_pem, again.key.0), (bundle.chain_pem, bundle.key.0));
    }
    Corpus::Keep
});
