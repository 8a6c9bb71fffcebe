//! awe4lb-e2e
