//! Asks a source, of whatever kind.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use awe4lb_model::discovery::{Source, SourceKind};

use crate::{Answer, Failure};

/// What this machine allows sources to use of it. By default nothing.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Programs, by their whole path.
    pub programs: Vec<Box<str>>,
    /// Folders whose files may be read.
    pub folders: Vec<Box<Path>>,
    /// Networks that are asked although they are link-local or a cloud's metadata service.
    pub networks: Vec<ipnet::IpNet>,
}

impl Allowed {
    /// Whether a program may be run.
    pub fn program(&self, program: &str) -> Result<(), Failure> {
        if self.programs.iter().any(|known| **known == *program) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{program} is not allowed here: start the control plane with --allow-exec {program}"
        )))
    }

    /// Whether a file may be read. Links count for what they lead to.
    pub fn file(&self, file: &str) -> Result<(), Failure> {
        let cannot = |error: std::io::Error| Failure::new(format!("{file}: {error}"));
        let path = std::fs::canonicalize(file).map_err(cannot)?;
        let is_within =
            |folder: &Path| std::fs::canonicalize(folder).is_ok_and(|folder| path.starts_with(folder));
        if self.folders.iter().any(|folder| is_within(folder)) {
            return Ok(());
        }
        let folder = Path::new(file).parent().unwrap_or(Path::new("/")).display();
        Err(Failure::new(format!(
            "{file} is not allowed here: start the control plane with --allow-files {folder}"
        )))
    }

    /// Whether an address may be asked.
    pub fn address(&self, ip: IpAddr) -> Result<(), Failure> {
        #[cfg(feature = "control-plane")]
        let is_delicate = crate::web::is_delicate(ip);
        #[cfg(not(feature = "control-plane"))]
        let is_delicate = false;
        if !is_delicate || self.networks.iter().any(|network| network.contains(&ip)) {
            return Ok(());
        }
        let text =
            "is link-local, where machines keep their secrets: start the control plane with --allow-network";
        Err(Failure::new(format!("{ip} {text} {ip}")))
    }
}

/// A source and what is remembered of it between two questions.
pub struct Asker {
    source: Source,
    #[cfg_attr(not(feature = "control-plane"), expect(dead_code, reason = "names need no permission"))]
    allowed: Arc<Allowed>,
    #[cfg(feature = "control-plane")]
    http: crate::http::Http,
    #[cfg(feature = "control-plane")]
    stamp: Option<crate::file::Stamp>,
    #[cfg(feature = "control-plane")]
    kubernetes: Option<Box<crate::kubernetes::Kubernetes>>,
    #[cfg(feature = "control-plane")]
    consul: Option<Box<crate::consul::Consul>>,
    #[cfg(feature = "control-plane")]
    sentinel: crate::sentinel::Sentinel,
    #[cfg(feature = "control-plane")]
    patroni: crate::patroni::Patroni,
    #[cfg(feature = "control-plane")]
    docker: crate::docker::Docker,
    #[cfg(feature = "control-plane")]
    swarm: crate::swarm::Swarm,
    #[cfg(feature = "control-plane")]
    lxd: crate::lxd::Lxd,
}

impl Asker {
    /// Asks nothing yet.
    pub fn new(source: Source, allowed: Arc<Allowed>) -> Self {
        Self {
            source,
            allowed,
            #[cfg(feature = "control-plane")]
            http: Default::default(),
            #[cfg(feature = "control-plane")]
            stamp: None,
            #[cfg(feature = "control-plane")]
            kubernetes: None,
            #[cfg(feature = "control-plane")]
            consul: None,
            #[cfg(feature = "control-plane")]
            sentinel: Default::default(),
            #[cfg(feature = "control-plane")]
            patroni: Default::default(),
            #[cfg(feature = "control-plane")]
            docker: Default::default(),
            #[cfg(feature = "control-plane")]
            swarm: Default::default(),
            #[cfg(feature = "control-plane")]
            lxd: Default::default(),
        }
    }

    /// Who is asked.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Asks once, for at most the source's timeout.
    pub async fn ask(&mut self) -> Result<Answer, Failure> {
        let timeout = self.source.timeout;
        match tokio::time::timeout(timeout, self.ask_kind()).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::new(format!("no answer within {timeout:?} (timeout)"))),
        }
    }

    async fn ask_kind(&mut self) -> Result<Answer, Failure> {
        match &self.source.kind {
            SourceKind::Dns(dns) => crate::dns::ask(dns, self.source.timeout).await,
            #[cfg(feature = "control-plane")]
            SourceKind::Http(source) => self.http.ask(source, &self.allowed).await,
            #[cfg(feature = "control-plane")]
            SourceKind::File(file) => {
                self.stamp = crate::file::Stamp::of(&file.path);
                let (answer, stamp) = crate::file::ask(file, &self.allowed).await?;
                self.stamp = stamp;
                Ok(answer)
            }
            #[cfg(feature = "control-plane")]
            SourceKind::Exec(exec) => crate::exec::ask(exec, &self.allowed).await,
            #[cfg(feature = "control-plane")]
            SourceKind::Kubernetes(source) => {
                let kubernetes = match &mut self.kubernetes {
                    Some(kubernetes) => kubernetes,
                    none => {
                        let new = crate::kubernetes::Kubernetes::new(source, &self.allowed).await?;
                        none.insert(Box::new(new))
                    }
                };
                let said = kubernetes.ask(source).await;
                // A token may have been replaced, and is read anew with the rest.
                let is_about_token =
                    |text: &str| text.contains("Unauthorized") || text.contains("bearer token");
                if said.as_ref().is_err_and(|failure| is_about_token(&failure.0)) {
                    self.kubernetes = None;
                }
                said
            }
            #[cfg(feature = "control-plane")]
            SourceKind::Consul(source) => {
                let times = (self.source.interval, self.source.timeout);
                self.consul.get_or_insert_default().ask(source, times, &self.allowed).await
            }
            #[cfg(feature = "control-plane")]
            SourceKind::Sentinel(source) => {
                self.sentinel.ask(source, self.source.timeout, &self.allowed).await
            }
            #[cfg(feature = "control-plane")]
            SourceKind::Patroni(source) => self.patroni.ask(source, self.source.timeout, &self.allowed).await,
            #[cfg(feature = "control-plane")]
            SourceKind::Docker(source) => {
                self.docker.ask(source, self.source.select.as_ref(), &self.allowed).await
            }
            #[cfg(feature = "control-plane")]
            SourceKind::Swarm(source) => {
                self.swarm.ask(source, self.source.select.as_ref(), &self.allowed).await
            }
            #[cfg(feature = "control-plane")]
            SourceKind::Lxd(source) => self.lxd.ask(source, self.source.select.as_ref(), &self.allowed).await,
            #[cfg(not(feature = "control-plane"))]
            SourceKind::Http(_)
            | SourceKind::File(_)
            | SourceKind::Exec(_)
            | SourceKind::Kubernetes(_)
            | SourceKind::Consul(_)
            | SourceKind::Sentinel(_)
            | SourceKind::Patroni(_)
            | SourceKind::Docker(_)
            | SourceKind::Swarm(_)
            | SourceKind::Lxd(_) => Err(Failure::new("only the control plane asks this")),
            SourceKind::Push(_) | SourceKind::Elsewhere => std::future::pending().await,
        }
    }

    /// Waits until it is time to ask again: after so long, or as soon as the source is known to have changed.
    pub async fn wait(&mut self, longest: Duration) {
        #[cfg(feature = "control-plane")]
        if let Some(kubernetes) = &mut self.kubernetes {
            // Errors are told when it is asked; not more often than that.
            let _ = tokio::time::timeout(longest, kubernetes.changed()).await;
            return;
        }
        #[cfg(feature = "control-plane")]
        if let (SourceKind::Consul(source), Some(consul)) = (&self.source.kind, &mut self.consul)
            && consul.is_waiting()
        {
            let _ = tokio::time::timeout(longest, consul.changed(source, &self.allowed)).await;
            return;
        }
        #[cfg(feature = "control-plane")]
        if let SourceKind::Sentinel(source) = &self.source.kind {
            let _ = tokio::time::timeout(longest, self.sentinel.changed(source, &self.allowed)).await;
            return;
        }
        #[cfg(feature = "control-plane")]
        if let SourceKind::Docker(_) = &self.source.kind {
            let _ = tokio::time::timeout(longest, self.docker.changed()).await;
            return;
        }
        #[cfg(feature = "control-plane")]
        if let SourceKind::File(file) = &self.source.kind {
            return crate::file::changed(&file.path, self.stamp, longest).await;
        }
        tokio::time::sleep(longest).await;
    }
}
