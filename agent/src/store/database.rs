//! The store on disk: a redb file.

use anyhow::Context;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend,
    StorageError, TableDefinition,
};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Changes, Row, Store, StoreError};

const FILE: &str = "store.redb";
/// What the tables mean. Grows when an older agent could not read them.
const FORMAT: u64 = 1;
/// redb's default is 1 GiB. The table lives in the core's memory; the cache only serves the commit.
const CACHE_BYTES: usize = 256 << 10;
/// Damaged stores that are kept, newest first.
const BROKEN_KEPT: u32 = 3;
/// With less free space than this the store takes nothing more. Its own file has pages to reuse long after
/// the disk is full, but what a unit needs (its record, its files, its output) would not fit.
const FREE_BYTES_MIN: u64 = 2 << 20;
/// A store that cannot be written is read into memory up to this size.
const COPY_BYTES_MAX: u64 = 256 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("notes");

/// Rows and notes in a file `store.redb`, readable by the agent's user only.
///
/// redb writes new pages beside the old ones and then switches over with a checksummed header, so a torn
/// write leaves the last commit. After an error of the disk the file is closed, and opened again for
/// the next write.
pub struct RedbStore {
    path: PathBuf,
    /// `None`: the disk refused the last time.
    database: Option<Database>,
    /// Notes as far as they could be read, for a store that cannot be opened for writing.
    copy: Option<Database>,
}

impl RedbStore {
    /// Opens or makes the store in `state`; returns its rows, and what people should know.
    ///
    /// # Errors
    /// When another agent uses it, or a newer agent wrote it, or a damaged one cannot be put aside.
    pub fn open(state: &Path) -> anyhow::Result<(Self, Vec<Row>, Vec<String>)> {
        let path = state.join(FILE);
        let mut warnings = Vec::new();
        let error = match open_file(&path).and_then(|database| Ok((load(&database)?, database))) {
            Ok((rows, database)) => {
                return Ok((Self { path, database: Some(database), copy: None }, rows, warnings));
            }
            Err(error) => error,
        };
        match error {
            StoreError::Damaged(reason) => {
                let aside = put_aside(&path)
                    .with_context(|| format!("{path:?} is damaged and cannot be put aside"))?;
                warnings.push(format!(
                    "the store was damaged ({reason}): it is kept as {aside:?}, and this node starts \
                     with an empty one and fetches its table from the others"
                ));
                let database = open_file(&path)?;
                Ok((Self { path, database: Some(database), copy: None }, Vec::new(), warnings))
            }
            StoreError::Disk(reason) => {
                let (copy, rows) = match read_copy(&path) {
                    Ok(Some((copy, rows))) => (Some(copy), rows),
                    Ok(None) => (None, Vec::new()),
                    Err(StoreError::Newer { found, known }) => {
                        return Err(StoreError::Newer { found, known }.into());
                    }
                    Err(error) => {
                        warnings.push(format!("the store cannot be read either ({error})"));
                        (None, Vec::new())
                    }
                };
                warnings.push(format!(
                    "the store in {path:?} cannot be written ({reason}): this node keeps what runs and \
                     takes no new work until it can; look at free space and at mount options"
                ));
                Ok((Self { path, database: None, copy }, rows, warnings))
            }
            other => Err(other.into()),
        }
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        if self.database.is_none() {
            self.database = Some(open_file(&self.path)?);
            self.copy = None;
        }
        self.database.as_ref().ok_or_else(|| StoreError::Disk("not open".to_owned()))
    }
}

impl Store for RedbStore {
    fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        match &self.copy {
            Some(copy) => load(copy),
            None => load(self.database()?),
        }
    }

    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match &self.copy {
            Some(copy) => note(copy, name),
            None => note(self.database()?, name),
        }
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        room(&self.path)?;
        let result =
            self.database().and_then(|database| commit(database, changes).map_err(refused));
        if result.is_err() {
            // redb does not go on after an error of the disk; the next call opens the file again.
            self.database = None;
        }
        result
    }
}

fn commit(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut rows = transaction.open_table(ROWS)?;
        for (key, value) in &changes.rows {
            match value {
                Some(value) => rows.insert(key.as_slice(), value.as_slice())?,
                None => rows.remove(key.as_slice())?,
            };
        }
        let mut notes = transaction.open_table(NOTES)?;
        for (name, value) in &changes.notes {
            notes.insert(name.as_str(), value.as_slice())?;
        }
    }
    Ok(transaction.commit()?)
}

fn load(database: &Database) -> Result<Vec<Row>, StoreError> {
    let read = || {
        let table = database.begin_read()?.open_table(ROWS)?;
        let mut rows = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            rows.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok::<_, redb::Error>(rows)
    };
    read().map_err(refused)
}

pub(crate) fn note(database: &Database, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let read = || {
        let table = database.begin_read()?.open_table(NOTES)?;
        Ok::<_, redb::Error>(table.get(name)?.map(|value| value.value().to_vec()))
    };
    read().map_err(refused)
}

/// Refuses when the disk is as good as full. A disk that does not tell is tried.
fn room(file: &Path) -> Result<(), StoreError> {
    let Some(space) = file.parent().and_then(|state| nix::sys::statvfs::statvfs(state).ok()) else {
        return Ok(());
    };
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    if free < FREE_BYTES_MIN {
        return Err(StoreError::Disk(format!(
            "only {free} bytes are free in the state directory, {FREE_BYTES_MIN} are needed: make room"
        )));
    }
    Ok(())
}

/// Opens or makes the file, and sees to it that it has our tables in our format.
fn open_file(path: &Path) -> Result<Database, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(disk)?;
    // It holds the gossip keys, whoever made it.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(disk)?;
    let backend = FileBackend::new(file).map_err(opening)?;
    prepare(backend)
}

fn prepare(backend: impl StorageBackend) -> Result<Database, StoreError> {
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        // Without it a damaged file that was closed cleanly is trusted, and may panic later.
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)
        .map_err(opening)?;
    let format = || {
        let read = database.begin_read()?;
        match read.open_table(META) {
            Ok(meta) => Ok::<_, redb::Error>(meta.get("format")?.map(|format| format.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    match format().map_err(refused)? {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => return Err(StoreError::Newer { found, known: FORMAT }),
        Some(found) => return Err(StoreError::Damaged(format!("format {found} never was"))),
        None => {
            let create = || {
                let transaction = database.begin_write()?;
                transaction.open_table(META)?.insert("format", FORMAT)?;
                transaction.open_table(ROWS)?;
                transaction.open_table(NOTES)?;
                Ok::<_, redb::Error>(transaction.commit()?)
            };
            create().map_err(refused)?;
        }
    }
    Ok(database)
}

/// Reads a store that cannot be written, by way of a copy in memory. `None`: there is none.
fn read_copy(path: &Path) -> Result<Option<(Database, Vec<Row>)>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk(error)),
    };
    let mut bytes = Vec::new();
    file.take(COPY_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(disk)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() as u64 > COPY_BYTES_MAX {
        return Err(StoreError::Disk(format!("more than {COPY_BYTES_MAX} bytes")));
    }
    of_bytes(bytes).map(Some)
}

/// What a file with these bytes is, in memory.
pub(crate) fn of_bytes(bytes: Vec<u8>) -> Result<(Database, Vec<Row>), StoreError> {
    let memory = InMemoryBackend::new();
    memory
        .set_len(bytes.len() as u64)
        .and_then(|()| memory.write(0, &bytes))
        .map_err(|error| StoreError::Disk(error.to_string()))?;
    drop(bytes);
    let database = prepare(memory)?;
    let rows = load(&database)?;
    Ok((database, rows))
}

/// Renames a damaged store to `store.redb.broken-1`, and older ones up to the last number.
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let broken = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".broken-{number}"));
        PathBuf::from(name)
    };
    for number in (1..BROKEN_KEPT).rev() {
        match fs::rename(broken(number), broken(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, broken(1))?;
    Ok(broken(1))
}

fn opening(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::InUse
        }
        DatabaseError::Storage(error) => storage(error),
        other => StoreError::Damaged(other.to_string()),
    }
}

fn refused(error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) => storage(StorageError::Io(error)),
        redb::Error::PreviousIo => StoreError::Disk("it failed before".to_owned()),
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
        other => StoreError::Damaged(other.to_string()),
    }
}

fn storage(error: StorageError) -> StoreError {
    match error {
        // Cut off, or never ours: reading past the end, or a wrong magic number.
        StorageError::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            StoreError::Damaged(error.to_string())
        }
        StorageError::Io(error) => disk(error),
        StorageError::PreviousIo => StoreError::Disk("it failed before".to_owned()),
        other => StoreError::Damaged(other.to_string()),
    }
}

fn disk(error: io::Error) -> StoreError {
    StoreError::Disk(error.to_string())
}
