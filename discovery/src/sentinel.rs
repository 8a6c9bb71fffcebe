//! Redis Sentinel: which server is the master now. All sentinels are asked; the newest configuration epoch is believed, and
//! of one epoch what most of them say. They tell when it changes.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::Arc,
    time::Duration,
};

use awe4lb_model::{
    discovery::{DatabaseRole, SentinelSource},
    document::backend_address,
};
use futures_util::{StreamExt as _, future::select_all, stream::FuturesUnordered};
use tokio::net::TcpStream;

use crate::{
    Allowed, Answer, Endpoint, Failure,
    resp::{Connection, Value},
    web,
};

/// A change is told in several messages; they are one answer.
const GATHER: Duration = Duration::from_millis(50);
/// Sentinels that answer later than the majority are waited for so long.
const LATECOMERS: Duration = Duration::from_millis(100);
/// A sentinel that cannot be listened to is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// What sentinels tell that changes who is what. With the master's name first, or `… @ NAME …` of its replicas.
const EVENTS: [&str; 7] =
    ["+switch-master", "+promoted-slave", "+slave", "+convert-to-slave", "+sdown", "-sdown", "+reboot"];

/// The sentinels that are listened to.
#[derive(Default)]
pub(crate) struct Sentinel {
    listening: Vec<Listening>,
}

/// One of them.
#[derive(Default)]
struct Listening {
    connection: Option<Connection>,
}

/// What one sentinel says.
struct Said {
    master: (String, u16),
    epoch: u64,
    replicas: Vec<(String, u16)>,
}

impl Sentinel {
    pub(crate) async fn ask(
        &mut self,
        source: &SentinelSource,
        timeout: Duration,
        allowed: &Arc<Allowed>,
    ) -> Result<Answer, Failure> {
        self.listening.resize_with(source.sentinels.len(), Listening::default);
        // One that hangs must leave the others the time to be believed.
        let patience = timeout.mul_f64(0.7);
        let mut asked: FuturesUnordered<_> = (0..source.sentinels.len())
            .map(|at| async move {
                let said = tokio::time::timeout(patience, ask_one(source, at, allowed)).await;
                (at, said.unwrap_or_else(|_| Err(format!("no answer within {patience:?}"))))
            })
            .collect();
        let (mut said, mut silent) = (Vec::new(), Vec::new());
        while let Some((at, answer)) = asked.next().await {
            note(at, answer, &mut said, &mut silent);
            if said.len() * 2 > source.sentinels.len() {
                break;
            }
        }
        let late = async {
            while let Some((at, answer)) = asked.next().await {
                note(at, answer, &mut said, &mut silent);
            }
        };
        let _ = tokio::time::timeout(LATECOMERS, late).await;
        drop(asked);
        let mut rejected = Vec::new();
        for (at, why) in silent {
            // Its line may be dead without anybody having said so.
            self.listening[at].connection = None;
            let (host, port) = &source.sentinels[at];
            rejected.push(format!("{host}:{port}: {why}"));
        }
        let Some(believed) = believed(said) else { return Err(Failure::new(rejected.join("; "))) };
        Ok(answer(source.role, &believed, rejected))
    }

    /// Waits until a sentinel tells of the master.
    pub(crate) async fn changed(&mut self, source: &SentinelSource, allowed: &Arc<Allowed>) {
        if self.listening.is_empty() {
            return std::future::pending().await;
        }
        let both = self.listening.iter_mut().enumerate();
        let told = both.map(|(at, listening)| Box::pin(listening.told(source, at, allowed)));
        select_all(told).await;
        tokio::time::sleep(GATHER).await;
    }
}

fn note(at: usize, answer: Result<Said, String>, said: &mut Vec<Said>, silent: &mut Vec<(usize, String)>) {
    match answer {
        Ok(answer) => said.push(answer),
        Err(why) => silent.push((at, why)),
    }
}

/// The newest configuration; of several that are equally new what most say. Replicas are those that at least half of
/// them find well: each looks for itself, some a little later than others.
fn believed(said: Vec<Said>) -> Option<Said> {
    let newest = said.iter().map(|one| one.epoch).max()?;
    let said: Vec<Said> = said.into_iter().filter(|one| one.epoch == newest).collect();
    let mut votes: HashMap<(String, u16), usize> = HashMap::new();
    for one in &said {
        *votes.entry(one.master.clone()).or_default() += 1;
    }
    let master = said.iter().max_by_key(|one| votes.get(&one.master).copied())?.master.clone();
    let agreeing: Vec<Said> = said.into_iter().filter(|one| one.master == master).collect();
    let mut replicas: BTreeMap<(String, u16), usize> = BTreeMap::new();
    for replica in agreeing.iter().flat_map(|one| &one.replicas) {
        *replicas.entry(replica.clone()).or_default() += 1;
    }
    replicas.retain(|_, count| *count * 2 >= agreeing.len());
    Some(Said { master, epoch: newest, replicas: replicas.into_keys().collect() })
}

fn answer(role: DatabaseRole, said: &Said, rejected: Vec<String>) -> Answer {
    let mut answer = Answer { rejected, ..Answer::default() };
    let mut add = |(host, port): &(String, u16), word: &str, priority| {
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        match backend_address(&format!("{host}:{port}")) {
            Ok(address) => {
                let endpoint = Endpoint { priority, ..Endpoint::at(address) };
                answer.endpoints.push(endpoint.label("role", word));
            }
            Err(why) => answer.rejected.push(why),
        }
    };
    if role != DatabaseRole::Replica {
        add(&said.master, "primary", None);
    }
    if role != DatabaseRole::Primary {
        let priority = (role == DatabaseRole::Any).then_some(1);
        said.replicas.iter().for_each(|replica| add(replica, "replica", priority));
    }
    answer
}

async fn ask_one(source: &SentinelSource, at: usize, allowed: &Arc<Allowed>) -> Result<Said, String> {
    let mut connection = connect(source, at, allowed).await?;
    let name = &*source.master;
    let mut ask = async |words: &[&str]| {
        let said = connection.ask(words, Duration::from_secs(60)).await.map_err(|error| error.to_string())?;
        match said {
            Value::Error(error) => Err(error),
            said => Ok(said),
        }
    };
    let address = ask(&["SENTINEL", "get-master-addr-by-name", name]).await?;
    let [host, port] = address.list() else { return Err(format!("it knows no master {name:?}")) };
    let master = place(host.text(), port.text()).ok_or("it tells no address of the master")?;
    let record = ask(&["SENTINEL", "master", name]).await?;
    let epoch = record.field("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    let replicas = match source.role {
        DatabaseRole::Primary => Vec::new(),
        DatabaseRole::Replica | DatabaseRole::Any => {
            let records = ask(&["SENTINEL", "replicas", name]).await?;
            records.list().iter().filter(|record| follows(record)).filter_map(replica).collect()
        }
    };
    Ok(Said { replicas: replicas.into_iter().filter(|replica| *replica != master).collect(), master, epoch })
}

fn place(host: Option<&str>, port: Option<&str>) -> Option<(String, u16)> {
    Some((host?.to_owned(), port?.parse().ok()?))
}

fn replica(record: &Value) -> Option<(String, u16)> {
    place(record.field("ip"), record.field("port"))
}

/// Whether a replica is there and follows its master.
fn follows(record: &Value) -> bool {
    let flags = record.field("flags").unwrap_or_default();
    let is_there =
        !flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected" | "master"));
    is_there && record.field("master-link-status") == Some("ok")
}

/// A connection that may ask.
async fn connect(source: &SentinelSource, at: usize, allowed: &Arc<Allowed>) -> Result<Connection, String> {
    let (host, port) = &source.sentinels[at];
    let found = tokio::net::lookup_host((&**host, *port)).await.map_err(|error| error.to_string())?;
    let mut last = format!("{host} has no address");
    for address in found {
        if let Err(failure) = allowed.address(address.ip()) {
            last = failure.0;
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let mut connection = Connection::new(stream);
                sign_in(source, allowed, &mut connection).await?;
                return Ok(connection);
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

async fn sign_in(
    source: &SentinelSource,
    allowed: &Allowed,
    connection: &mut Connection,
) -> Result<(), String> {
    let Some(file) = &source.password_file else { return Ok(()) };
    let password = web::secret(file, allowed).map_err(|failure| failure.0)?;
    let words = match &source.user {
        Some(user) => vec!["AUTH", &**user, &*password],
        None => vec!["AUTH", &*password],
    };
    match connection.ask(&words, Duration::from_secs(60)).await {
        Ok(Value::Error(error)) => Err(format!("{error} (see passwordFile)")),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

impl Listening {
    /// Until it tells something of the master, over as many connections as that takes.
    async fn told(&mut self, source: &SentinelSource, at: usize, allowed: &Arc<Allowed>) {
        loop {
            let heard = match &mut self.connection {
                Some(connection) => hear(connection, &source.master).await,
                none => match subscribe(source, at, allowed).await {
                    // What happened before is not told.
                    Ok(connection) => {
                        *none = Some(connection);
                        return;
                    }
                    // Why is told when it is asked.
                    Err(_) => Err(io::ErrorKind::NotConnected.into()),
                },
            };
            match heard {
                Ok(()) => return,
                Err(_) => {
                    self.connection = None;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

async fn subscribe(source: &SentinelSource, at: usize, allowed: &Arc<Allowed>) -> Result<Connection, String> {
    let mut connection = connect(source, at, allowed).await?;
    let words: Vec<&str> = std::iter::once("SUBSCRIBE").chain(EVENTS).collect();
    connection.send(&words).await.map_err(|error| error.to_string())?;
    Ok(connection)
}

/// Until there is a message about this master.
async fn hear(connection: &mut Connection, master: &str) -> io::Result<()> {
    loop {
        let message = connection.receive().await?;
        if let Value::Error(error) = &message {
            return Err(io::Error::other(error.clone()));
        }
        let [kind, _, text] = message.list() else { continue };
        if kind.text() == Some("message") && text.text().is_some_and(|text| is_about(text, master)) {
            return Ok(());
        }
    }
}

/// `mymaster 10.0.0.1 6379 …`, `master mymaster …`, `slave … @ mymaster …`.
fn is_about(text: &str, master: &str) -> bool {
    text.split(' ').any(|word| word == master)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(host: &str, epoch: u64) -> Said {
        Said { master: (host.to_owned(), 6379), epoch, replicas: Vec::new() }
    }

    #[test]
    fn the_newest_epoch_is_believed_and_then_the_most() {
        let who = |said| believed(said).unwrap().master.0;
        assert_eq!(who(vec![said("old", 3), said("old", 3), said("new", 4)]), "new");
        assert_eq!(who(vec![said("a", 3), said("b", 3), said("b", 3)]), "b");
        assert!(believed(Vec::new()).is_none());
        let with = |replicas: &[&str]| Said {
            replicas: replicas.iter().map(|host| ((*host).to_owned(), 6379)).collect(),
            ..said("m", 3)
        };
        let replicas =
            believed(vec![with(&["a", "b"]), with(&["a", "c"]), with(&["a", "b"])]).unwrap().replicas;
        assert_eq!(replicas, [("a".to_owned(), 6379), ("b".to_owned(), 6379)]);
    }

    #[test]
    fn roles() {
        let all =
            Said { replicas: vec![("10.0.0.2".into(), 6379), ("::1".into(), 1)], ..said("10.0.0.1", 1) };
        let found = |role| -> Vec<(String, Option<u32>)> {
            let answer = answer(role, &all, Vec::new());
            answer.endpoints.iter().map(|one| (one.address.to_string(), one.priority)).collect()
        };
        assert_eq!(found(DatabaseRole::Primary), [("10.0.0.1:6379".into(), None)]);
        assert_eq!(found(DatabaseRole::Replica), [("10.0.0.2:6379".into(), None), ("[::1]:1".into(), None)]);
        assert_eq!(
            found(DatabaseRole::Any)[1..],
            [("10.0.0.2:6379".into(), Some(1)), ("[::1]:1".into(), Some(1))]
        );
    }

    #[test]
    fn messages_name_their_master() {
        assert!(is_about("mymaster 10.0.0.1 6379 10.0.0.2 6379", "mymaster"));
        assert!(is_about("slave 10.0.0.1:6379 10.0.0.1 6379 @ mymaster 10.0.0.2 6379", "mymaster"));
        assert!(!is_about("othermaster 10.0.0.1 6379 10.0.0.2 6379", "mymaster"));
    }
}
