//! Reads the pieces that messages of either side are made of. Every reader wants all that it says, and
//! tells what was left over.

/// What is left of a message's body.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(length);
        self.0 = rest;
        front
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes(1)[0]
    }

    pub fn int16(&mut self) -> i16 {
        i16::from_be_bytes(self.bytes(2).try_into().unwrap())
    }

    pub fn int32(&mut self) -> i32 {
        i32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }

    pub fn string(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).expect("a string ends with a NUL");
        let text = std::str::from_utf8(self.bytes(end)).expect("a string is UTF-8").to_owned();
        self.byte();
        text
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = u16::from_be_bytes(self.bytes(2).try_into().unwrap());
        (0..count).map(|_| read(self)).collect()
    }

    /// A value with its length in front; -1 is NULL.
    pub fn value(&mut self) -> Option<Vec<u8>> {
        let length = self.int32();
        (length != -1).then(|| self.bytes(usize::try_from(length).expect("a length")).to_vec())
    }

    pub fn end(&self) {
        assert!(self.0.is_empty(), "{} bytes too many", self.0.len());
    }
}

/// A tag and a body for each message of a stream, which must end with the last of them.
pub fn messages(mut stream: &[u8]) -> Vec<(u8, &[u8])> {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        let mut reader = Reader(stream);
        let tag = reader.byte();
        let length = usize::try_from(reader.int32()).expect("a length");
        let body = reader.bytes(length - 4);
        messages.push((tag, body));
        stream = reader.rest();
    }
    messages
}
