//! awe4lb-bench
