//! The state of the container network: a transactional table file in the state directory, on a thread of its own.
//!
//! What [`Db::commit`] has answered is on disk, all of it or, where it failed, none: after a crash, a `kill -9` or a full disk at any moment
//! the file holds the last answered state. Keys and values belong to whoever uses a table; values carry their own version.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::StoreError;

/// Name of the file in the state directory.
const FILE: &str = "state.redb";
/// Bytes of cache: the library's own default is 1 GiB.
const CACHE: usize = 4 << 20;
/// Requests that may wait for the disk; more are answered with an error.
const QUEUE: usize = 1024;
/// Commits that are made as one where they wait for each other, as a disk takes its time for each.
const GATHER: usize = 256;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The state machine of address allocation.
    Ipam,
    /// Addresses given to containers.
    Addresses,
    /// Names that were added by hand.
    Names,
    /// Containers on the network, and what the host itself was exposed as.
    Containers,
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Table::Ipam => "ipam",
            Table::Addresses => "addresses",
            Table::Names => "names",
            Table::Containers => "containers",
        })
    }
}

/// A new value of a key, or its removal.
pub type Change = (Table, String, Option<Vec<u8>>);

/// Keys and values.
pub type Rows = Vec<(String, Vec<u8>)>;

/// A commit, and where to say how it went.
type Commit = (Vec<Change>, oneshot::Sender<Result<(), StoreError>>);

enum Job {
    All(Table, oneshot::Sender<Result<Rows, StoreError>>),
    Commit(Vec<Change>, oneshot::Sender<Result<(), StoreError>>),
}

/// The file; clones share it. The last clone that is dropped ends the thread.
#[derive(Clone)]
pub struct Db {
    jobs: crossbeam::channel::Sender<Job>,
    path: PathBuf,
}

impl Db {
    /// Opens the file in a state directory whose lock is held, and makes it where it is missing.
    pub fn open(dir: &Path) -> Result<Db, StoreError> {
        let path = dir.join(FILE);
        let database = open(&path)?;
        super::close_to_others(&path)?;
        let (jobs, queue) = crossbeam::channel::bounded(QUEUE);
        let thread = Worker { database: Some(database), path: path.clone(), queue };
        let spawned = std::thread::Builder::new().name("store".into()).spawn(move || thread.run());
        spawned.map_err(|e| StoreError::system("start the thread that writes", &path, e))?;
        Ok(Db { jobs, path })
    }

    /// All rows of a table, ascending by key.
    pub async fn all(&self, table: Table) -> Result<Rows, StoreError> {
        self.ask(|answer| Job::All(table, answer)).await?
    }

    /// Makes all these changes, or none.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.ask(|answer| Job::Commit(changes, answer)).await?
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let gone = |what: &str| StoreError::system("write", &self.path, std::io::Error::other(what.to_string()));
        self.jobs.try_send(job(answer)).map_err(|_| gone("the disk is too slow for what is asked of it"))?;
        answered.await.map_err(|_| gone("the thread that writes has ended"))
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

fn open(path: &Path) -> Result<Database, StoreError> {
    match builder().create(path) {
        Ok(database) => Ok(database),
        Err(redb::DatabaseError::Storage(redb::StorageError::Io(e))) if e.kind() != std::io::ErrorKind::InvalidData => {
            Err(StoreError::system("open", path, e))
        }
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::Locked { path: path.display().to_string() }),
        Err(error) => Err(StoreError::Damaged {
            path: path.display().to_string(),
            what: error.to_string(),
            remedy: "put it back from a backup, or delete it: addresses of running containers are then found again where they are",
        }),
    }
}

struct Worker {
    /// None after a failure of the disk: the library then refuses everything until the file is opened again.
    database: Option<Database>,
    path: PathBuf,
    queue: crossbeam::channel::Receiver<Job>,
}

impl Worker {
    fn run(mut self) {
        while let Ok(job) = self.queue.recv() {
            let mut commits = Vec::new();
            let mut next = Some(job);
            while let Some(job) = next.take() {
                match job {
                    Job::Commit(changes, answer) => commits.push((changes, answer)),
                    Job::All(table, answer) => {
                        self.commit(std::mem::take(&mut commits));
                        let rows = self.read(table);
                        drop(answer.send(rows.map_err(|e| self.explain("read", e))));
                    }
                }
                next = if commits.len() < GATHER { self.queue.try_recv().ok() } else { None };
            }
            self.commit(commits);
        }
    }

    fn commit(&mut self, commits: Vec<Commit>) {
        if commits.is_empty() {
            return;
        }
        if let Err(first) = self.write(commits.iter().flat_map(|(changes, _)| changes)) {
            // One that cannot be written must not fail its neighbours.
            let alone = commits.len() == 1;
            let mut first = Some(first);
            for (changes, answer) in commits {
                let result = if alone { first.take().map_or(Ok(()), Err) } else { self.write(changes.iter()) };
                let _ = answer.send(result.map_err(|e| self.explain("write", e)));
            }
            return;
        }
        for (_, answer) in commits {
            let _ = answer.send(Ok(()));
        }
    }

    fn write<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> Result<(), redb::Error> {
        let result = self.database().and_then(|database| write(database, changes));
        self.reopen_after(&result);
        result
    }

    fn read(&mut self, table: Table) -> Result<Rows, redb::Error> {
        let result = self.database().and_then(|database| read(database, table));
        self.reopen_after(&result);
        result
    }

    fn database(&mut self) -> Result<&Database, redb::Error> {
        if self.database.is_none() {
            // It was there before: an empty one in its place would be a loss that nobody hears of.
            self.database = Some(builder().open(&self.path)?);
        }
        self.database.as_ref().ok_or(redb::Error::PreviousIo)
    }

    fn reopen_after<T>(&mut self, result: &Result<T, redb::Error>) {
        if matches!(result, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            self.database = None;
        }
    }

    fn explain(&self, action: &'static str, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Io(e) => StoreError::system(action, &self.path, e),
            redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path: self.path.display().to_string() },
            redb::Error::PreviousIo => StoreError::system(action, &self.path, std::io::Error::other("the disk failed before")),
            other => StoreError::Damaged {
                path: self.path.display().to_string(),
                what: other.to_string(),
                remedy: "stop the router and put the file back from a backup, or delete it",
            },
        }
    }
}

fn write<'a>(database: &Database, changes: impl Iterator<Item = &'a Change>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for (table, key, value) in changes {
        let mut table = transaction.open_table(table.definition())?;
        match value {
            Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
            None => drop(table.remove(key.as_str())?),
        }
    }
    Ok(transaction.commit()?)
}

fn read(database: &Database, table: Table) -> Result<Rows, redb::Error> {
    let transaction = database.begin_write()?;
    // Opening for writing makes the table where it is missing.
    let rows = {
        let table = transaction.open_table(table.definition())?;
        let rows = table.iter()?.map(|row| row.map(|(key, value)| (key.value().to_string(), value.value().to_vec())));
        rows.collect::<Result<Rows, _>>()?
    };
    transaction.abort()?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
    }

    fn set(table: Table, key: &str, value: &str) -> Change {
        (table, key.to_string(), Some(value.as_bytes().to_vec()))
    }

    #[test]
    fn what_is_committed_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let db = Db::open(dir.path()).expect("a new file");
            assert_eq!(db.all(Table::Ipam).await.expect("rows"), []);
            db.commit(vec![set(Table::Ipam, "b", "1"), set(Table::Ipam, "a", "2"), set(Table::Names, "a", "3")]).await.expect("on disk");
            db.commit(vec![(Table::Ipam, "b".into(), None), set(Table::Addresses, "x", "y")]).await.expect("on disk");
        });
        runtime().block_on(async {
            let db = loop {
                // The thread of the first may still be closing the file.
                match Db::open(dir.path()) {
                    Ok(db) => break db,
                    Err(error) => assert!(error.to_string().contains("open"), "{error}"),
                }
            };
            assert_eq!(db.all(Table::Ipam).await.expect("rows"), [("a".to_string(), b"2".to_vec())]);
            assert_eq!(db.all(Table::Names).await.expect("rows"), [("a".to_string(), b"3".to_vec())]);
            for table in [Table::Ipam, Table::Addresses, Table::Names, Table::Containers] {
                assert_eq!(db.all(table).await.expect("rows").len(), usize::from(table != Table::Containers));
            }
        });
    }

    #[test]
    fn many_at_once_are_all_answered() {
        let dir = tempfile::tempdir().expect("a folder");
        runtime().block_on(async {
            let db = Db::open(dir.path()).expect("a new file");
            let all = (0..500).map(|n| db.commit(vec![set(Table::Addresses, &format!("{n:03}"), "v")]));
            let answers = futures::future::join_all(all).await;
            assert!(answers.iter().all(Result::is_ok));
            assert_eq!(db.all(Table::Addresses).await.expect("rows").len(), 500);
        });
    }

    #[test]
    fn a_file_that_another_has_open_is_not_damaged() {
        let dir = tempfile::tempdir().expect("a folder");
        let other = builder().create(dir.path().join(FILE)).expect("a file");
        let error = Db::open(dir.path()).err().expect("an error").to_string();
        assert!(error.contains("another process has it open") && !error.contains("damaged"), "{error}");
        drop(other);
        assert!(Db::open(dir.path()).is_ok());
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_said_to_be_damaged() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(FILE), vec![7; 8192]).expect("a file");
        let error = Db::open(dir.path()).err().expect("an error").to_string();
        assert!(error.contains("state.redb is damaged") && error.contains("backup"), "{error}");
    }
}
