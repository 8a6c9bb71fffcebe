//! awe4lb-cli
