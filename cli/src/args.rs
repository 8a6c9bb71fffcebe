//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The command line of awe4lb.
#[derive(Debug, Parser)]
#[command(name = "awe4lb", version, about, propagate_version = true)]
pub struct Cli {
    /// At which control plane, and how to print.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Address of the control plane. Default: that of the login, else http://127.0.0.1:7070.
    #[arg(long, env = "AWE4LB_SERVER", global = true, value_name = "URL")]
    pub server: Option<String>,
    /// API token, in place of a login. A file is better: arguments can be seen by others.
    #[arg(long, env = "AWE4LB_TOKEN", global = true, hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// File with an API token.
    #[arg(long, env = "AWE4LB_TOKEN_FILE", global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate (PEM) to trust: the control plane's self-made one is DATA/http-cert.pem.
    #[arg(long, env = "AWE4LB_CACERT", global = true, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// How to print.
    #[arg(long, short, global = true, default_value = "table", value_name = "FORM")]
    pub output: Output,
}

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// As the REST API says it.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names alone, one a line.
    Name,
}

/// Everything.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in, and keep an API token for the commands that follow.
    Login(Login),
    /// Check a document without a control plane: everything that is wrong with it, at once.
    Validate(Files),
    /// Print a document in its usual form (keeps no comments).
    Fmt(Fmt),
    /// Print a document in another language.
    Convert(Convert),
    /// Print the JSON Schema of documents.
    Schema {
        /// A table of all fields with their defaults instead.
        #[arg(long)]
        defaults: bool,
    },
    /// Create and change what a document names.
    Apply(Apply),
    /// Show what applying a document would change. Exit code 0: nothing, 1: something.
    Diff(Diff),
    /// List objects of a kind, or show one.
    Get {
        /// What.
        kind: Kind,
        /// Which.
        name: Option<String>,
    },
    /// Show all that is known of one object: a certificate with what serves and what happens next.
    Describe {
        /// What.
        kind: Kind,
        /// Which.
        name: String,
    },
    /// Print the whole configuration as a document, without keys.
    Export {
        /// As it was at this revision.
        #[arg(long)]
        revision: Option<u64>,
        /// In which language.
        #[arg(long, default_value = "yaml")]
        format: Language,
    },
    /// Certificates by hand: import, issue for development, export, renew.
    Certificate {
        /// What.
        #[command(subcommand)]
        action: CertificateAction,
    },
    /// Show the nodes: what each is to run and runs.
    Nodes {
        /// Or drain, undrain, ban, forget one.
        #[command(subcommand)]
        action: Option<NodeAction>,
    },
    /// API tokens, and tokens for nodes that join.
    Token {
        /// Which.
        #[command(subcommand)]
        action: TokenAction,
    },
    /// Give a backend no new connections.
    Drain(BackendArgs),
    /// Take a backend out for work on it.
    Maintain(BackendArgs),
    /// Give a backend connections again.
    Ready(BackendArgs),
    /// Show what has been forwarded.
    Stats {
        /// Only this node's share.
        #[arg(long)]
        node: Option<String>,
    },
    /// Show what would become of a connection, and why: every rule, the pool, every backend.
    Explain(Explain),
    /// Show how the sources of backends do, or what those of a file would yield now.
    Discover {
        /// A document with pools, or a pool alone; its sources are asked once, and nothing is changed.
        #[arg(short, long, value_name = "FILE")]
        file: Option<String>,
        /// Only of this pool.
        #[arg(long, conflicts_with = "file")]
        pool: Option<String>,
    },
    /// Show the revisions, newest first, or what one changed.
    History {
        /// Which.
        revision: Option<u64>,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Make a new revision with the content of an old one.
    Restore {
        /// Which.
        revision: u64,
        /// What to do besides.
        #[command(flatten)]
        write: Write,
    },
    /// Print the completions of a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the versions of this program and of the control plane.
    Version,
}

/// How to sign in.
#[derive(Debug, Args)]
pub struct Explain {
    /// Which listener it comes to.
    #[arg(long)]
    pub listener: String,
    /// The client's address.
    #[arg(long)]
    pub from: std::net::IpAddr,
    /// The address of the socket's peer, where a proxy is in between.
    #[arg(long)]
    pub peer: Option<std::net::IpAddr>,
    /// The port it comes to; the first of the listener when absent.
    #[arg(long)]
    pub port: Option<u16>,
    /// The server name of its ClientHello.
    #[arg(long)]
    pub sni: Option<String>,
    /// An application protocol of its ClientHello. Repeatable.
    #[arg(long)]
    pub alpn: Vec<String>,
    /// It speaks TLS, also without a server name.
    #[arg(long)]
    pub tls: bool,
}

#[derive(Debug, Args)]
pub struct Login {
    /// Who.
    #[arg(long, default_value = "admin")]
    pub user: String,
    /// File with the password; without one it is asked for.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// File with the code that makes the first admin: DATA/bootstrap-code of the control plane.
    #[arg(long, value_name = "FILE")]
    pub bootstrap_file: Option<PathBuf>,
}

/// Documents.
#[derive(Debug, Args)]
pub struct Files {
    /// YAML, JSON or TOML by its ending; - is YAML on stdin.
    #[arg(required = true)]
    pub files: Vec<String>,
}

/// How to format.
#[derive(Debug, Args)]
pub struct Fmt {
    /// Which documents.
    #[command(flatten)]
    pub files: Files,
    /// Print nothing; exit 1 if one is not in its usual form.
    #[arg(long)]
    pub check: bool,
    /// Write back to the files.
    #[arg(long, short, conflicts_with = "check")]
    pub write: bool,
}

/// From language to language.
#[derive(Debug, Args)]
pub struct Convert {
    /// YAML, JSON or TOML by its ending; - is YAML on stdin.
    pub file: String,
    /// Into which language.
    #[arg(long, default_value = "yaml")]
    pub to: Language,
}

/// Languages of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// YAML 1.2.
    Yaml,
    /// JSON.
    Json,
    /// TOML 1.
    Toml,
}

/// Of commands that change the configuration.
#[derive(Debug, Clone, Args)]
pub struct Write {
    /// Check and show what would change; store nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Kept in the history.
    #[arg(long, short, default_value = "")]
    pub message: String,
    /// Until every connected node runs it; exit 1 when one rejects it.
    #[arg(long)]
    pub wait: bool,
    /// How long to wait; exit 6 after that.
    #[arg(long, default_value = "60s", value_parser = awe4lb_model::document::duration)]
    pub timeout: std::time::Duration,
}

/// What to apply.
#[derive(Debug, Args)]
pub struct Apply {
    /// YAML, JSON or TOML by its ending; - is YAML on stdin. Files that it names are read from here.
    pub file: String,
    /// Delete what the document does not name.
    #[arg(long)]
    pub prune: bool,
    /// How.
    #[command(flatten)]
    pub write: Write,
}

/// What to compare.
#[derive(Debug, Args)]
pub struct Diff {
    /// YAML, JSON or TOML by its ending; - is YAML on stdin.
    pub file: String,
    /// As if what the document does not name were deleted.
    #[arg(long)]
    pub prune: bool,
}

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Where traffic comes in.
    #[value(alias = "listener")]
    Listeners,
    /// Groups of backends.
    #[value(alias = "pool")]
    Pools,
    /// Backends at run time, as the nodes see them.
    #[value(alias = "backend")]
    Backends,
    /// Chains and keys.
    #[value(alias = "certificate")]
    Certificates,
    /// Addresses by name; their entries change without a revision.
    #[value(alias = "address-list")]
    AddressLists,
    /// From server names to pools.
    #[value(alias = "map")]
    Maps,
    /// Accounts with certificate authorities.
    #[value(alias = "acme-account")]
    AcmeAccounts,
    /// The fleet.
    #[value(alias = "node")]
    Nodes,
    /// API tokens.
    #[value(alias = "token")]
    Tokens,
    /// Tokens for nodes that join.
    #[value(alias = "join-token")]
    JoinTokens,
    /// The history.
    #[value(alias = "revision")]
    Revisions,
}

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum CertificateAction {
    /// Store chain and key from files: PEM of any kind in any order, or PKCS#12.
    Import {
        /// The files; each is PEM or PKCS#12.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// What it is called. Default: the first name that it is for.
        #[arg(long)]
        name: Option<String>,
        /// File with the password of the key or the archive; without one it is asked for when it is needed.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Check and show what is odd; store nothing.
        #[arg(long)]
        dry_run: bool,
        /// Also in the place of a certificate that renews itself.
        #[arg(long)]
        force: bool,
    },
    /// Sign one for development or for a backend.
    Issue {
        /// What it is called.
        name: String,
        /// Who signs it.
        #[arg(long, default_value = "internal")]
        ca: Signer,
        /// What it is for: a domain or an address. Repeatable.
        #[arg(long, required = true)]
        domain: Vec<String>,
        /// How long it lives.
        #[arg(long, default_value_t = 90)]
        days: u32,
        /// Of its key: p256, p384 or rsa2048.
        #[arg(long, default_value = "p256")]
        key_type: String,
        /// Write NAME.pem, NAME.key and ca.pem to this folder, and store nothing in the control plane.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Also in the place of a certificate that renews itself.
        #[arg(long)]
        force: bool,
    },
    /// Print the chain that serves.
    Export {
        /// Which.
        name: String,
        /// To this file.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Order one of ACME now.
    Renew {
        /// Which.
        name: String,
        /// Until it is there; exit 1 when the order fails.
        #[arg(long)]
        wait: bool,
        /// How long to wait; exit 6 after that.
        #[arg(long, default_value = "120s", value_parser = awe4lb_model::document::duration)]
        timeout: std::time::Duration,
    },
    /// Print the certificate of the internal authority, which clients are to trust.
    Ca,
}

/// Who signs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Signer {
    /// The authority of the control plane.
    Internal,
    /// It itself.
    SelfSigned,
}

/// What to do with a node.
#[derive(Debug, Subcommand)]
pub enum NodeAction {
    /// Its readiness goes off, its connections stay.
    Drain {
        /// Which.
        name: String,
    },
    /// Takes back drain.
    Undrain {
        /// Which.
        name: String,
    },
    /// Cuts it off within a second, for good.
    Ban {
        /// Which.
        name: String,
    },
    /// Removes its record; it may join again with a token.
    Forget {
        /// Which.
        name: String,
    },
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Make an API token; it is printed once.
    Create {
        /// What it is for.
        name: String,
        /// What it may do: viewer, operator or admin.
        #[arg(long, default_value = "viewer")]
        role: String,
        /// In place of a role: it may tell this source of type push which backends it has, and nothing else.
        #[arg(long, value_name = "POOL/SOURCE", conflicts_with = "role")]
        push: Option<String>,
        /// For how long, as 30d. Default: until it is revoked.
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<String>,
    },
    /// List API tokens.
    List,
    /// End an API token at once.
    Revoke {
        /// Its id, from the list.
        id: String,
    },
    /// Make a token with which nodes join; it is printed once.
    Join {
        /// How many nodes may use it.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// For how long.
        #[arg(long, default_value = "10m", value_name = "DURATION")]
        expires_in: String,
        /// What the nodes are labelled with: zone=a. Repeatable.
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
}

/// A backend, and why.
#[derive(Debug, Args)]
pub struct BackendArgs {
    /// Which.
    #[arg(value_name = "POOL/BACKEND")]
    pub backend: String,
    /// When it is ready again by itself, as 10m.
    #[arg(long, value_name = "DURATION")]
    pub deadline: Option<String>,
    /// Why; shown to others.
    #[arg(long, default_value = "")]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds() {
        Cli::command().debug_assert();
    }
}
