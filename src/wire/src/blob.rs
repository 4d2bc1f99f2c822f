//! Definitions that travel through rings in pieces: modules and code objects.
//!
//! Little endian throughout. Strings are a `u32` length and bytes (paths as
//! they are, names in UTF-8).

/// A loaded ELF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleDef<'a> {
    /// Address that its file's virtual address 0 has in the process: a frame
    /// at `address` has offset `address - bias`.
    pub bias: u64,
    /// First and past-the-last mapped address.
    pub start: u64,
    /// See `start`.
    pub end: u64,
    /// The build-id note, or empty.
    pub build_id: &'a [u8],
    /// Path as the loader has it; the executable's may be empty (read
    /// `/proc/PID/exe`), the vDSO's is its soname.
    pub path: &'a [u8],
}

/// A Python code object, copied when it was first seen on a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeDef<'a> {
    /// How [`CodeDef::lines`] reads: 9 = `co_lnotab` (3.9), 10 = `co_linetable`
    /// of 3.10, 11 = location table of 3.11 and later.
    pub line_format: u8,
    /// `co_firstlineno`.
    pub first_line: u32,
    /// `co_filename`.
    pub file: &'a [u8],
    /// `co_qualname`, or `co_name` where there is none.
    pub name: &'a [u8],
    /// The line table's bytes.
    pub lines: &'a [u8],
}

/// Reads what [`Encoder`] wrote.
struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn u64(&mut self) -> Option<u64> {
        let low = self.u32()?;
        let high = self.u32()?;
        Some(u64::from(high) << 32 | u64::from(low))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }
}

/// Writes into a buffer that the caller sized; what does not fit is dropped
/// and shows in [`Encoder::needed`].
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Encoder<'a> {
    /// Starts at the beginning of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Encoder { out, at: 0 }
    }

    /// Bytes that the whole encoding takes; more than the buffer's length
    /// when it did not fit.
    pub fn needed(&self) -> usize {
        self.at
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        if let Some(place) = self.out.get_mut(self.at..self.at + bytes.len()) {
            for (to, from) in place.iter_mut().zip(bytes) {
                *to = *from;
            }
        }
        self.at += bytes.len();
        self
    }

    /// Appends a number.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a number.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Appends a length and bytes.
    pub fn string(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32).bytes(bytes)
    }
}

impl<'a> ModuleDef<'a> {
    /// Writes the definition.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u64(self.bias)
            .u64(self.start)
            .u64(self.end)
            .string(self.build_id)
            .string(self.path);
    }

    /// Reads a definition, `None` if it is none.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut from = Decoder(bytes);
        Some(ModuleDef {
            bias: from.u64()?,
            start: from.u64()?,
            end: from.u64()?,
            build_id: from.string()?,
            path: from.string()?,
        })
    }
}

impl<'a> CodeDef<'a> {
    /// Writes the definition.
    pub fn encode(&self, out: &mut Encoder<'_>) {
        out.u32(self.line_format.into())
            .u32(self.first_line)
            .string(self.file)
            .string(self.name)
            .string(self.lines);
    }

    /// Reads a definition, `None` if it is none.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut from = Decoder(bytes);
        Some(CodeDef {
            line_format: u8::try_from(from.u32()?).ok()?,
            first_line: from.u32()?,
            file: from.string()?,
            name: from.string()?,
            lines: from.string()?,
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn definitions_come_back_and_cut_ones_are_refused() {
        let module = ModuleDef {
            bias: 0x5555_0000_0000,
            start: 0x5555_0000_1000,
            end: 0x5555_0001_0000,
            build_id: &[1, 2, 3],
            path: b"/lib/x.so",
        };
        let mut buffer = [0; 128];
        let mut out = Encoder::new(&mut buffer);
        module.encode(&mut out);
        let length = out.needed();
        assert_eq!(ModuleDef::decode(&buffer[..length]), Some(module));
        for cut in 0..length {
            assert_eq!(ModuleDef::decode(&buffer[..cut]), None, "cut at {cut}");
        }
    }
}
