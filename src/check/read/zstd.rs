//! Decompresses zstd (RFC 8878): any number of frames and skippable frames, with their checksums verified. The
//! decoder refuses a frame that needs more than 100 MiB of memory, as only `zstd --ultra` and `--long` make them.

use crate::check::read::OverLimit;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, Read};

/// The header of a frame with a window of 1 KiB. The decoder checks the window of every frame but its first, which
/// therefore is this one.
const FIRST_HEADER: &[u8] = b"\x28\xb5\x2f\xfd\x00\x00";

/// The decompressed bytes of a stream of frames.
pub(crate) struct Decoder<R> {
    source: R,
    frame: FrameDecoder,
    is_in_frame: bool,
    is_limited: bool,
}

impl<R: Read> Decoder<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, frame: FrameDecoder::new(), is_in_frame: false, is_limited: false }
    }

    /// Reads the header of the next frame. False at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        if !self.is_limited {
            self.frame.reset(FIRST_HEADER).map_err(io::Error::other)?;
            self.is_limited = true;
        }
        loop {
            let mut first = [0_u8; 1];
            if self.source.read(&mut first)? == 0 {
                return Ok(false);
            }
            match self.frame.reset(first.as_slice().chain(&mut self.source)) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped =
                        io::copy(&mut self.source.by_ref().take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                // Engines can unpack it, so it is not damaged.
                Err(FrameDecoderError::WindowSizeTooBig { requested: bytes }) => {
                    return Err(io::Error::other(OverLimit::Window { bytes }));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame && !self.next_frame()? {
                return Ok(0);
            }
            self.is_in_frame = true;
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.frame.decode_blocks(&mut self.source, one).map_err(io::Error::other)?;
            }
            let len = self.frame.read(buffer)?;
            if len > 0 || buffer.is_empty() {
                return Ok(len);
            }
            let written = self.frame.get_checksum_from_data();
            if written.is_some() && written != self.frame.get_calculated_checksum() {
                return Err(io::Error::other("wrong checksum of a zstd frame"));
            }
            self.is_in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::read::Budget;
    use crate::check::read::tar_stream::{TarError, each_entry};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        Decoder::new(bytes).read_to_end(&mut found)?;
        Ok(found)
    }

    #[test]
    fn every_frame_is_read_and_what_is_to_be_skipped_is_not() {
        let plain: Vec<u8> =
            (0..300_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let frame = compress_to_vec(plain.as_slice(), CompressionLevel::Fastest);
        assert_eq!(unpack(&frame).unwrap(), plain);
        let skipped = [&b"\x50\x2a\x4d\x18\x03\0\0\0"[..], b"abc"].concat();
        let all = [&skipped[..], &frame, &skipped, &frame].concat();
        assert_eq!(unpack(&all).unwrap(), [&plain[..], &plain].concat());
        assert_eq!(unpack(b"").unwrap(), b"");
    }

    #[test]
    fn what_is_cut_off_damaged_or_asks_for_too_much_is_an_error() {
        let frame =
            compress_to_vec(&b"some text, some text, some text"[..], CompressionLevel::Fastest);
        for len in 1..frame.len() {
            assert!(unpack(&frame[..len]).is_err(), "{len} of {}", frame.len());
        }
        let mut damaged = frame.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(unpack(&damaged).unwrap_err().to_string().contains("checksum"));
        assert!(unpack(b"\x50\x2a\x4d\x18\xff\0\0\0abc").is_err());
        // A window of 1 GiB: 2^(10 + 20) bytes.
        let wide = b"\x28\xb5\x2f\xfd\x00\xa0";
        assert!(unpack(wide).unwrap_err().to_string().contains("a window of 1073741824 bytes"));
    }

    #[test]
    fn a_zstd_window_beyond_the_limit_is_not_called_damage() {
        // A frame with a window of 1 GiB: 2^(10 + 20) bytes. Engines take it.
        let frame = b"\x28\xb5\x2f\xfd\x00\xa0";
        let budget = Budget::of(100_000);
        let found = each_entry::<TarError>(&mut frame.as_slice(), &budget, &mut |_| Ok(()));
        let error = found.unwrap_err();
        assert!(!error.is_damage(), "{error}");
        let cut_off = each_entry::<TarError>(&mut &frame[..5], &budget, &mut |_| Ok(()));
        assert!(cut_off.unwrap_err().is_damage());
    }
}
