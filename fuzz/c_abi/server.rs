//! A server in the target's own process that speaks just enough of the protocol: it lets everybody in, keeps
//! the status of transactions, seals, and gives rows that are made from the text of the statement, so that a
//! statement that is run again gives the same.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use segue::session::classify::split;

/// bool, int2, int4, int8, oid, float4, float8, text, varchar, bytea, numeric, jsonb, no built-in type.
const TYPES: [u32; 13] = [16, 21, 23, 20, 26, 700, 701, 25, 1043, 17, 1700, 3802, 4_000_000_000];

/// Serves a Unix socket in `directory` for as long as the process lives.
pub fn start(directory: &Path) {
    let listener = UnixListener::bind(directory.join(".s.PGSQL.5432")).expect("a socket");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || Connection::new(stream).serve());
        }
    });
}

/// A statement's own number, the same each time.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Numbers that follow from a statement.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

struct Connection {
    stream: UnixStream,
    out: Vec<u8>,
    status: u8,
    /// After an error, until the next Sync.
    skips: bool,
    prepared: HashMap<Vec<u8>, (String, Vec<u32>)>,
    portal: String,
    copying: bool,
    ended: bool,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            out: Vec::new(),
            status: b'I',
            skips: false,
            prepared: HashMap::new(),
            portal: String::new(),
            copying: false,
            ended: false,
        }
    }

    fn serve(mut self) {
        let _ = self.run();
    }

    fn run(&mut self) -> std::io::Result<()> {
        if !self.greet()? {
            return Ok(());
        }
        while !self.ended {
            let mut header = [0; 5];
            self.stream.read_exact(&mut header)?;
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
            let mut body = vec![0; length - 4];
            self.stream.read_exact(&mut body)?;
            self.handle(header[0], &body);
            if matches!(header[0], b'Q' | b'S' | b'H' | b'c' | b'f') {
                self.stream.write_all(&self.out)?;
                self.out.clear();
            }
            self.ended |= header[0] == b'X';
        }
        Ok(())
    }

    /// Whether it is one that stays, not a request to cancel another.
    fn greet(&mut self) -> std::io::Result<bool> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        self.stream.read_exact(&mut body)?;
        if body.starts_with(&80_877_102_u32.to_be_bytes()) {
            return Ok(false);
        }
        self.put(b'R', &[&[0, 0, 0, 0]]);
        for (name, value) in [
            ("server_version", "15.4"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("in_hot_standby", "off"),
            ("default_transaction_read_only", "off"),
        ] {
            self.put(b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
        }
        self.put(b'K', &[&[0, 0, 0, 7, 0, 0, 0, 9]]);
        self.ready();
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(true)
    }

    fn put(&mut self, tag: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.out.push(tag);
        self.out.extend((length as u32 + 4).to_be_bytes());
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
    }

    fn ready(&mut self) {
        let status = self.status;
        self.put(b'Z', &[&[status]]);
    }

    fn tag(&mut self, tag: &str) {
        self.put(b'C', &[tag.as_bytes(), b"\0"]);
    }

    fn fail(&mut self, severity: &str, code: &str) {
        let fields =
            format!("S{severity}\0V{severity}\0C{code}\0Mas was asked for\0Ddetail\0P3\0\0");
        self.put(b'E', &[fields.as_bytes()]);
        self.skips = true;
        if self.status == b'T' {
            self.status = b'E';
        }
    }

    fn handle(&mut self, tag: u8, body: &[u8]) {
        match tag {
            // Between CopyInResponse and CopyDone it means nothing.
            b'S' if self.copying => {}
            b'S' => {
                self.skips = false;
                self.ready();
            }
            b'Q' => {
                self.skips = false;
                let text = String::from_utf8_lossy(&body[..body.len() - 1]).into_owned();
                self.simple(&text);
            }
            b'c' | b'f' => self.end_copy(tag == b'c'),
            _ if self.skips => {}
            b'P' => self.parse(body),
            b'B' => {
                let mut parts = body.split(|byte| *byte == 0);
                let name = parts.nth(1).unwrap_or_default();
                let known = self.prepared.get(name).map(|(sql, _)| sql.clone());
                match known {
                    Some(sql) => {
                        self.portal = sql;
                        self.put(b'2', &[]);
                    }
                    None => self.fail("ERROR", "26000"),
                }
            }
            b'D' => self.describe(body),
            b'E' => {
                let sql = std::mem::take(&mut self.portal);
                self.execute(&sql, false);
            }
            b'C' => {
                self.prepared.remove(body.get(1..body.len() - 1).unwrap_or_default());
                self.put(b'3', &[]);
            }
            _ => {}
        }
    }

    fn parse(&mut self, body: &[u8]) {
        let mut parts = body.splitn(3, |byte| *byte == 0);
        let name = parts.next().unwrap_or_default().to_vec();
        let sql = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let rest = parts.next().unwrap_or_default();
        let mut types: Vec<u32> = rest
            .get(2..)
            .unwrap_or_default()
            .chunks_exact(4)
            .map(|oid| u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]]))
            .collect();
        let most = (1..=64).rev().find(|number| sql.contains(&format!("${number}"))).unwrap_or(0);
        types.resize(types.len().max(most), 0);
        for (index, oid) in types.iter_mut().enumerate().filter(|(_, oid)| **oid == 0) {
            *oid = TYPES[(hash(&sql) as usize).wrapping_add(index) % TYPES.len()];
        }
        if sql.contains("segue.") {
            types = if sql.contains("segue.open") { vec![2950, 2950] } else { vec![2950, 20] };
        }
        self.prepared.insert(name, (sql, types));
        self.put(b'1', &[]);
    }

    fn describe(&mut self, body: &[u8]) {
        let (sql, types) = match body.first() {
            Some(b'S') => match self.prepared.get(&body[1..body.len() - 1]) {
                Some(known) => known.clone(),
                None => return self.fail("ERROR", "26000"),
            },
            _ => (self.portal.clone(), Vec::new()),
        };
        if body[0] == b'S' {
            let mut described = (types.len() as u16).to_be_bytes().to_vec();
            types.iter().for_each(|oid| described.extend(oid.to_be_bytes()));
            self.put(b't', &[&described]);
        }
        self.describe_rows(&sql);
    }

    fn describe_rows(&mut self, sql: &str) {
        let columns = columns(sql);
        if columns.is_empty() {
            return self.put(b'n', &[]);
        }
        let mut described = (columns.len() as u16).to_be_bytes().to_vec();
        for (index, oid) in columns.iter().enumerate() {
            described.extend(format!("c{index}\0").bytes());
            described.extend([0; 6]);
            described.extend(oid.to_be_bytes());
            described.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        }
        self.put(b'T', &[&described]);
    }

    fn simple(&mut self, text: &str) {
        let statements = split(text);
        if statements.is_empty() {
            self.put(b'I', &[]);
        }
        for sql in statements {
            if !columns(sql).is_empty() {
                self.describe_rows(sql);
            }
            self.execute(sql, true);
            if self.skips || self.ended || self.copying {
                break;
            }
        }
        if !self.ended && !self.copying {
            self.skips = false;
            self.ready();
        }
    }

    fn execute(&mut self, sql: &str, simple: bool) {
        let upper = sql.trim_start().to_ascii_uppercase();
        let word = upper.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if self.status == b'E' && !matches!(word, "ROLLBACK" | "COMMIT" | "END" | "ABORT") {
            return self.fail("ERROR", "25P02");
        }
        match word {
            "" => self.put(b'I', &[]),
            "BEGIN" | "START" => {
                self.status = b'T';
                self.tag("BEGIN");
            }
            "ROLLBACK" if upper.contains(" TO ") => {
                self.status = b'T';
                self.tag("ROLLBACK");
            }
            "COMMIT" | "END" | "ROLLBACK" | "ABORT" => {
                let committed = self.status != b'E' && matches!(word, "COMMIT" | "END");
                self.status = if upper.contains("AND CHAIN") { b'T' } else { b'I' };
                self.tag(if committed { "COMMIT" } else { "ROLLBACK" });
            }
            "RAISE" => {
                let code: String = upper.chars().skip(6).take(5).collect();
                self.fail("ERROR", if code.is_ascii() { &code } else { "XX000" });
            }
            "DIE" => {
                self.fail("FATAL", "57P01");
                self.ended = true;
            }
            "NOTIFY" => {
                self.put(b'A', &[&[0, 0, 0, 7], b"c\0", sql.as_bytes(), b"\0"]);
                self.tag("NOTIFY");
            }
            "COPY" if upper.contains("STDIN") => {
                self.copying = true;
                self.skips = !simple;
                self.put(b'G', &[&[0, 0, 0]]);
            }
            "COPY" => {
                self.put(b'H', &[&[0, 0, 0]]);
                let mut numbers = Numbers(hash(sql) | 1);
                let rows = numbers.below(5);
                for _ in 0..rows {
                    let length = numbers.below(40) as usize;
                    let data = vec![b'a'; length];
                    self.put(b'd', &[&data]);
                }
                self.put(b'c', &[]);
                self.tag(&format!("COPY {rows}"));
            }
            _ if !columns(sql).is_empty() => self.rows(sql),
            "INSERT" => self.tag("INSERT 0 1"),
            "UPDATE" | "DELETE" => self.tag(&format!("{word} 1")),
            _ => self.tag(word),
        }
    }

    /// COPY from the client has ended: by itself, or by CopyFail.
    fn end_copy(&mut self, done: bool) {
        if !std::mem::take(&mut self.copying) {
            return;
        }
        // By the extended protocol a Sync follows; by the simple one nothing does.
        let simple = !self.skips;
        self.skips = false;
        if done {
            self.tag("COPY 1");
        } else {
            self.fail("ERROR", "57014");
        }
        if simple {
            self.skips = false;
            self.ready();
        }
    }

    fn rows(&mut self, sql: &str) {
        if sql.contains("segue_probe") {
            let values =
                ["f", "off", "7", "000000010000000000000001", "", "0/10", "", "table", "1.5"];
            let mut row = (values.len() as u16).to_be_bytes().to_vec();
            for value in values {
                match value {
                    "" => row.extend([0xff; 4]),
                    value => {
                        row.extend((value.len() as u32).to_be_bytes());
                        row.extend(value.bytes());
                    }
                }
            }
            self.put(b'D', &[&row]);
            return self.tag("SELECT 1");
        }
        if sql.contains("segue.look") {
            return self.tag("SELECT 0");
        }
        if sql.contains("segue.") {
            self.put(b'D', &[&[0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]]);
            return self.tag("SELECT 1");
        }
        let columns = columns(sql);
        let mut numbers = Numbers(hash(sql) | 1);
        let rows = numbers.below(5);
        for _ in 0..rows {
            let mut row = (columns.len() as u16).to_be_bytes().to_vec();
            for oid in &columns {
                if numbers.below(6) == 0 {
                    row.extend([0xff; 4]);
                    continue;
                }
                let value = value(*oid, &mut numbers);
                row.extend((value.len() as u32).to_be_bytes());
                row.extend(value);
            }
            self.put(b'D', &[&row]);
        }
        self.tag(&format!("SELECT {rows}"));
    }
}

/// The types of a statement's columns; none for one that returns no rows.
fn columns(sql: &str) -> Vec<u32> {
    let upper = sql.trim_start().to_ascii_uppercase();
    let returns = ["SELECT", "VALUES", "TABLE", "SHOW", "WITH", "FETCH"];
    if !returns.iter().any(|word| upper.starts_with(word)) && !upper.contains("RETURNING") {
        return Vec::new();
    }
    if sql.contains("segue_probe") {
        return vec![25; 9];
    }
    if sql.contains("segue.") {
        return vec![20; if sql.contains("segue.look") { 3 } else { 1 }];
    }
    let mut numbers = Numbers(hash(sql).rotate_left(17) | 1);
    let count = 1 + numbers.below(4);
    (0..count).map(|_| TYPES[numbers.below(TYPES.len() as u64) as usize]).collect()
}

/// A value in some format, right or wrong for its type.
fn value(oid: u32, numbers: &mut Numbers) -> Vec<u8> {
    let binary = match oid {
        16 => 1,
        21 => 2,
        23 | 26 | 700 => 4,
        20 | 701 => 8,
        _ => 0,
    };
    match numbers.below(5) {
        0 => numbers.below(1 << 40).to_string().into_bytes(),
        1 => b"\\x00ff".to_vec(),
        2 if binary > 0 => (0..binary).map(|_| numbers.below(256) as u8).collect(),
        3 => b"t".to_vec(),
        _ => {
            let length = numbers.below(20);
            (0..length).map(|_| numbers.below(256) as u8).collect()
        }
    }
}
