//! Files with holes: where their data belongs, in GNU's old form and in those of PAX headers.

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::BLOCK;
use super::entry::Reason;
use super::pax::Records;

/// The most pieces that a file with holes may have.
const PIECES: usize = 1 << 20;

/// Pieces of data, as offset and length, in order.
pub type Map = Vec<(u64, u64)>;

/// Adds the pieces of one block of GNU's old form.
///
/// # Errors
/// What of it is no number.
pub fn add_old(map: &mut Map, blocks: &[GnuSparseHeader]) -> Result<(), Reason> {
    for block in blocks.iter().filter(|block| !block.is_empty()) {
        let number = |result: std::io::Result<u64>| result.map_err(|error| error.to_string());
        map.push((number(block.offset())?, number(block.length())?));
    }
    if map.len() > PIECES { Err("too many holes".into()) } else { Ok(()) }
}

/// The pieces in a header of GNU's old form, the size of the file, and whether further blocks follow.
///
/// # Errors
/// What is wrong with it.
pub fn old(header: &Header) -> Result<(Map, u64, bool), Reason> {
    let gnu = header.as_gnu().ok_or("holes in a header that cannot have them")?;
    let mut map = Map::new();
    add_old(&mut map, &gnu.sparse)?;
    Ok((map, gnu.real_size().map_err(|error| error.to_string())?, gnu.is_extended()))
}

/// One more block of GNU's old form, from its bytes; whether another follows.
///
/// # Errors
/// What is wrong with it.
pub fn old_more(map: &mut Map, bytes: &[u8; BLOCK as usize]) -> Result<bool, Reason> {
    let mut block = GnuExtSparseHeader::new();
    block.as_mut_bytes().copy_from_slice(bytes);
    add_old(map, &block.sparse)?;
    Ok(block.is_extended())
}

/// How a PAX header says that a file has holes.
#[derive(Debug, PartialEq, Eq)]
pub enum Pax {
    /// The pieces are in the header (0.1).
    Here(Map),
    /// The pieces stand before the data (1.0).
    Before,
}

/// What a PAX header says of holes, and the size of the file.
///
/// # Errors
/// What is wrong with it.
pub fn pax(records: &Records) -> Result<Option<(Pax, u64)>, Reason> {
    let size = match records.number(b"GNU.sparse.realsize")? {
        Some(size) => Some(size),
        None => records.number(b"GNU.sparse.size")?,
    };
    if let Some(map) = records.get(b"GNU.sparse.map") {
        let numbers = map.split(|byte| *byte == b',').map(number).collect::<Option<Vec<_>>>();
        let numbers = numbers.filter(|numbers| numbers.len() <= PIECES.saturating_mul(2));
        let pieces = numbers.and_then(pairs).ok_or("holes that make no sense")?;
        return Ok(Some((Pax::Here(pieces), size.ok_or("holes without a size")?)));
    }
    match (records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")) {
        (None, None) => Ok(None),
        (Some(b"1"), Some(b"0")) => Ok(Some((Pax::Before, size.ok_or("holes without a size")?))),
        _ => Err("holes in a form that is not supported".into()),
    }
}

/// Reads the pieces that stand before the data (1.0): numbers, a line each, the first of which is how many pairs follow.
///
/// Calls `next` for each block of 512 bytes, and returns how many there were.
///
/// # Errors
/// Those of `next`; what is wrong with the numbers.
pub fn before<E: From<Reason>>(mut next: impl FnMut() -> Result<[u8; BLOCK as usize], E>) -> Result<(Map, u64), E> {
    let bad = || E::from("holes that make no sense".into());
    let (mut numbers, mut digits, mut blocks) = (Vec::new(), Vec::new(), 0_u64);
    let mut wanted = None;
    while wanted != Some(numbers.len()) {
        let block = next()?;
        blocks = blocks.saturating_add(1);
        for byte in block {
            if byte != b'\n' {
                digits.push(byte);
                if digits.len() > 20 {
                    return Err(bad());
                }
                continue;
            }
            numbers.push(number(&digits).ok_or_else(bad)?);
            digits.clear();
            if let [count] = *numbers.as_slice() {
                let count = usize::try_from(count).ok().filter(|count| *count <= PIECES).ok_or_else(bad)?;
                wanted = Some(count.saturating_mul(2).saturating_add(1));
            }
            if wanted == Some(numbers.len()) {
                break;
            }
        }
    }
    numbers.remove(0);
    Ok((pairs(numbers).ok_or_else(bad)?, blocks))
}

/// Checks that the pieces are in order, within a file of `size` bytes, and `stored` bytes together.
///
/// # Errors
/// That they are not.
pub fn check(map: &Map, size: u64, stored: u64) -> Result<(), Reason> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, len) in map {
        if *offset < end {
            return Err("holes that overlap".into());
        }
        end = offset.checked_add(*len).ok_or("holes that make no sense")?;
        sum = sum.saturating_add(*len);
    }
    if end > size || sum != stored {
        return Err("a size that its holes do not fit".into());
    }
    Ok(())
}

fn number(digits: &[u8]) -> Option<u64> {
    let text = str::from_utf8(digits).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn pairs(numbers: Vec<u64>) -> Option<Map> {
    let (pairs, []) = numbers.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[offset, len]| (*offset, *len)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> Result<(Map, u64), Reason> {
        let bytes = text.as_bytes().to_vec();
        let mut chunks = bytes.chunks(512).map(|chunk| {
            let mut block = [0; 512];
            block[..chunk.len()].copy_from_slice(chunk);
            block
        });
        before(|| chunks.next().ok_or_else(|| "the end".to_owned()))
    }

    #[test]
    fn pieces_before_the_data() {
        assert_eq!(blocks("2\n0\n10\n4096\n1\n"), Ok((vec![(0, 10), (4096, 1)], 1)));
        assert_eq!(blocks("0\n"), Ok((vec![], 1)));
        let many: String = (0..100).map(|n| format!("{}\n1\n", n * 4096)).collect();
        assert_eq!(blocks(&format!("100\n{many}")).unwrap().0.len(), 100);
        for bad in ["x\n", "1\n2\n", "99999999999\n", "\n", "1\n000000000000000000000001\n1\n"] {
            assert!(blocks(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pieces_have_to_fit() {
        assert!(check(&vec![(0, 1), (5, 5)], 10, 6).is_ok());
        for (map, size, stored) in [
            (vec![(5, 1), (0, 1)], 10, 2),
            (vec![(0, 5), (4, 1)], 10, 6),
            (vec![(9, 2)], 10, 2),
            (vec![(0, 1)], 10, 2),
            (vec![(u64::MAX, 1)], 10, 1),
        ] {
            assert!(check(&map, size, stored).is_err(), "{map:?}");
        }
    }
}
