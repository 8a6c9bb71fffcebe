//! The web console, embedded. Built without node there is none, and a page says how to get it.

use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "../web-ui/dist"]
#[allow_missing = true]
struct Files;

/// The page of every address of the console.
pub const INDEX: &str = "index.html";
/// Shown when the console was not built.
pub const MISSING: &str = "<!doctype html><html lang=\"en\"><title>awe4lb</title><h1>awe4lb</h1>\
<p>This control plane was built without the console. Build it with <code>npm ci --ignore-scripts &amp;&amp; npm run build</code> \
in <code>web-ui</code>, and build the control plane again. REST and the command line work without it: \
<a href=\"/api/openapi.json\">/api/openapi.json</a>.</p></html>";

/// A file of the console, by its path without the first slash.
#[must_use]
pub fn file(path: &str) -> Option<EmbeddedFile> {
    Files::get(path)
}
