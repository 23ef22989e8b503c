//! A directory in memory that fails on purpose, and that can be looked at as a crash would leave it.
//!
//! It keeps apart what the kernel has and what the disk has: a write reaches the disk with the next
//! sync of its file, a name with the next sync of the directory. A sync that fails forgets what it
//! could not write, as Linux does, so that a later one that succeeds proves nothing.
//!
//! The simulation (`tests/sim`) has it too.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Directory, Stored};

/// One thing that was done to the directory.
#[derive(Debug, Clone)]
pub enum Op {
    Create { inode: usize, name: String },
    Write { inode: usize, position: u64, bytes: Vec<u8> },
    Truncate { inode: usize, len: u64 },
    Sync { inode: usize },
    Remove { name: String },
    Rename { from: String, to: String },
    SyncNames,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    kernel: Vec<u8>,
    disk: Vec<u8>,
    /// What the kernel has and the disk may not, in order.
    dirty: Vec<Op>,
}

/// The state of all files.
#[derive(Debug, Clone, Default)]
pub struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    disk_names: BTreeMap<String, usize>,
    /// What was done to names since they were last on the disk.
    dirty_names: Vec<Op>,
}

/// What survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The process died: the kernel has everything.
    Process,
    /// The machine died: only what was synced is there.
    Disk,
    /// The machine died, and of what was not synced every piece of 512 bytes was written or not, as
    /// the bits of this number say.
    Torn(u64),
    /// The machine died, and of what was not synced of each file the first operations have arrived, as
    /// many as this number says, the last of them cut at some byte.
    Cut(u64),
}

impl State {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { inode, name } => {
                while self.inodes.len() <= *inode {
                    self.inodes.push(Inode::default());
                }
                self.names.insert(name.clone(), *inode);
                self.dirty_names.push(op.clone());
            }
            Op::Write { inode, .. } | Op::Truncate { inode, .. } => {
                apply_to(&mut self.inodes[*inode].kernel, op);
                self.inodes[*inode].dirty.push(op.clone());
            }
            Op::Sync { inode } => {
                let Inode { disk, dirty, .. } = &mut self.inodes[*inode];
                dirty.drain(..).for_each(|op| apply_to(disk, &op));
            }
            Op::Remove { name } => {
                self.names.remove(name);
                self.dirty_names.push(op.clone());
            }
            Op::Rename { from, to } => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                }
                self.dirty_names.push(op.clone());
            }
            Op::SyncNames => {
                self.disk_names = self.names.clone();
                self.dirty_names.clear();
                // Nobody can look at what has no name any more.
                let kept: Vec<usize> = self.names.values().copied().collect();
                for (inode, content) in self.inodes.iter_mut().enumerate() {
                    if !kept.contains(&inode) {
                        *content = Inode::default();
                    }
                }
            }
        }
    }

    /// The files as they are after a crash.
    pub fn after(&self, view: View) -> BTreeMap<String, Vec<u8>> {
        let names = match view {
            View::Process => &self.names,
            View::Disk => &self.disk_names,
            // Names are journalled in order by file systems: here, all or none of them.
            View::Torn(bits) | View::Cut(bits) if bits & 1 == 0 => &self.disk_names,
            View::Torn(_) | View::Cut(_) => &self.names,
        };
        let content = |inode: &usize| {
            let inode = &self.inodes[*inode];
            match view {
                View::Process => inode.kernel.clone(),
                View::Disk => inode.disk.clone(),
                View::Torn(bits) => torn(inode, bits),
                View::Cut(number) => cut(inode, number),
            }
        };
        names.iter().map(|(name, inode)| (name.clone(), content(inode))).collect()
    }
}

fn apply_to(content: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { position, bytes, .. } => {
            let at = usize::try_from(*position).unwrap();
            if content.len() < at + bytes.len() {
                content.resize(at + bytes.len(), 0);
            }
            content[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Op::Truncate { len, .. } => content.resize(usize::try_from(*len).unwrap(), 0),
        _ => {}
    }
}

impl Op {
    /// As much of it as a crash in its midst leaves: of a write the first bytes, of anything else
    /// nothing.
    pub fn cut(&self, number: u64) -> Option<Self> {
        let Self::Write { inode, position, bytes } = self else { return None };
        let len = usize::try_from(number).unwrap_or(0) % (bytes.len() + 1);
        Some(Self::Write { inode: *inode, position: *position, bytes: bytes[..len].to_vec() })
    }
}

fn cut(inode: &Inode, number: u64) -> Vec<u8> {
    let mut content = inode.disk.clone();
    let random = number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    let whole = usize::try_from(random >> 33).unwrap_or(0) % (inode.dirty.len() + 1);
    inode.dirty[..whole].iter().for_each(|op| apply_to(&mut content, op));
    if let Some(op) = inode.dirty.get(whole).and_then(|op| op.cut(random >> 8)) {
        apply_to(&mut content, &op);
    }
    content
}

fn torn(inode: &Inode, bits: u64) -> Vec<u8> {
    const PIECE: usize = 512;
    let mut content = inode.disk.clone();
    let mut random = bits | 1;
    let len = inode.kernel.len();
    if len > content.len() {
        content.resize(len, 0);
    }
    for start in (0..len).step_by(PIECE) {
        let end = (start + PIECE).min(len);
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        if random >> 40 & 1 == 1 {
            content[start..end].copy_from_slice(&inode.kernel[start..end]);
        }
    }
    content
}

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// The n-th sync fails, of a file or of the directory, from 0; and so many more.
    pub fail_sync: Option<(usize, usize)>,
    /// The n-th write writes half and fails with this kind; and so many more.
    pub fail_write: Option<(usize, usize, ErrorKind)>,
    /// There is room for so many bytes in all files together.
    pub space: Option<usize>,
    pub read_only: bool,
    /// Files cannot be made shorter.
    pub cannot_cut: bool,
    /// Syncs wait until this is taken back.
    pub stall_syncs: bool,
}

#[derive(Default)]
struct Inner {
    state: State,
    trace: Vec<Op>,
    plan: Plan,
    syncs: usize,
    writes: usize,
    stalled: bool,
}

#[derive(Clone, Default)]
pub struct Faulty(Arc<Mutex<Inner>>);

impl Faulty {
    pub fn with(plan: Plan) -> Self {
        let faulty = Self::default();
        faulty.lock().plan = plan;
        faulty
    }

    /// A directory with these files on its disk.
    pub fn of(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let faulty = Self::default();
        {
            let mut inner = faulty.lock();
            for (name, content) in files {
                let inode = inner.state.inodes.len();
                let (kernel, disk) = (content.clone(), content.clone());
                inner.state.inodes.push(Inode { kernel, disk, dirty: Vec::new() });
                inner.state.names.insert(name.clone(), inode);
            }
            inner.state.disk_names = inner.state.names.clone();
        }
        faulty
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn plan(&self, plan: Plan) {
        self.lock().plan = plan;
    }

    pub fn trace(&self) -> Vec<Op> {
        self.lock().trace.clone()
    }

    /// What was done since there were so many operations; for the simulation.
    #[allow(dead_code)]
    pub fn trace_from(&self, from: usize) -> Vec<Op> {
        self.lock().trace[from..].to_vec()
    }

    /// For the simulation.
    #[allow(dead_code)]
    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    pub fn trace_len(&self) -> usize {
        self.lock().trace.len()
    }

    pub fn syncs(&self) -> usize {
        self.lock().syncs
    }

    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    fn stall(&self) {
        loop {
            let mut inner = self.lock();
            inner.stalled = inner.plan.stall_syncs;
            if !inner.stalled {
                return;
            }
            drop(inner);
            std::thread::yield_now();
        }
    }

    /// Whether somebody waits for a sync that does not come.
    pub fn is_stalled(&self) -> bool {
        self.lock().stalled
    }

    pub fn after(&self, view: View) -> BTreeMap<String, Vec<u8>> {
        self.lock().state.after(view)
    }
}

impl Inner {
    fn act(&mut self, op: Op) {
        self.state.apply(&op);
        self.trace.push(op);
    }

    fn used(&self) -> usize {
        self.state.names.values().map(|inode| self.state.inodes[*inode].kernel.len()).sum()
    }

    fn sync(&mut self) -> io::Result<()> {
        let count = self.syncs;
        self.syncs += 1;
        match self.plan.fail_sync {
            Some((from, more)) if (from..=from + more).contains(&count) => {
                Err(io::Error::from_raw_os_error(5))
            }
            _ => Ok(()),
        }
    }

    fn writable(&self) -> io::Result<()> {
        if self.plan.read_only { Err(ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }
}

impl Directory for Faulty {
    fn name(&self) -> String {
        "/faulty".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        let mut inner = self.lock();
        inner.writable()?;
        assert!(!inner.state.names.contains_key(name), "{name} is made twice");
        let inode = inner.state.inodes.len();
        inner.act(Op::Create { inode, name: name.to_owned() });
        Ok(Box::new(FaultyFile { dir: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        let inode = self.lock().state.names.get(name).copied();
        let inode = inode.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        Ok(Box::new(FaultyFile { dir: self.clone(), inode }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.writable()?;
        if !inner.state.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        inner.act(Op::Remove { name: name.to_owned() });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.writable()?;
        inner.act(Op::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.sync()?;
        inner.act(Op::SyncNames);
        Ok(())
    }
}

struct FaultyFile {
    dir: Faulty,
    inode: usize,
}

impl Stored for FaultyFile {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.dir.lock();
        inner.writable()?;
        let count = inner.writes;
        inner.writes += 1;
        let inode = self.inode;
        let len = inner.state.inodes[inode].kernel.len();
        let grows = (usize::try_from(position).unwrap() + bytes.len()).saturating_sub(len);
        let space = inner.plan.space.unwrap_or(usize::MAX);
        let (fits, error) = match inner.plan.fail_write {
            Some((from, more, kind)) if (from..=from + more).contains(&count) => {
                (bytes.len() / 2, Some(kind))
            }
            _ if inner.used() + grows > space => {
                let over = inner.used() + grows - space;
                (bytes.len().saturating_sub(over), Some(ErrorKind::StorageFull))
            }
            _ => (bytes.len(), None),
        };
        if fits > 0 {
            inner.act(Op::Write { inode, position, bytes: bytes[..fits].to_vec() });
        }
        error.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let inner = self.dir.lock();
        let content = &inner.state.inodes[self.inode].kernel;
        let at = usize::try_from(position).unwrap().min(content.len());
        let len = into.len().min(content.len() - at);
        into[..len].copy_from_slice(&content[at..at + len]);
        Ok(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.dir.stall();
        let mut inner = self.dir.lock();
        let inode = self.inode;
        if let Err(error) = inner.sync() {
            // The kernel's copy is clean from now on, and the disk has none.
            inner.state.inodes[inode].dirty.clear();
            return Err(error);
        }
        inner.act(Op::Sync { inode });
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut inner = self.dir.lock();
        inner.writable()?;
        if inner.plan.cannot_cut {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        let inode = self.inode;
        inner.act(Op::Truncate { inode, len });
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.dir.lock().state.inodes[self.inode].kernel.len() as u64)
    }
}
