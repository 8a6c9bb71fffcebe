//! Protocol buffers as programs. A fuzzer that changes the length of a text would have to change the lengths of all the
//! messages around it at the same time; in a program it need not, as lengths are only made when it is built.
//!
//! `v FIELD NUMBER`, `s FIELD LENGTH BYTES`, `( FIELD` … `)`; FIELD is one byte, numbers are varints. Other bytes are
//! skipped.
#![allow(dead_code, reason = "the targets build, the seeds take apart")]

/// The message that a program describes. Every program describes one.
pub fn build(mut program: &[u8]) -> Vec<u8> {
    let mut open: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut message = Vec::new();
    while let [operation, rest @ ..] = program {
        program = rest;
        match (operation, rest) {
            (b'v', [field, rest @ ..]) => {
                let (number, rest) = take_number(rest);
                key(&mut message, *field, 0);
                put_number(&mut message, number);
                program = rest;
            }
            (b's', [field, rest @ ..]) => {
                let (length, rest) = take_number(rest);
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
                let (bytes, rest) = rest.split_at(length);
                nested(&mut message, *field, bytes);
                program = rest;
            }
            (b'(', [field, rest @ ..]) if open.len() < 16 => {
                open.push((*field, std::mem::take(&mut message)));
                program = rest;
            }
            (b')', _) => close(&mut open, &mut message),
            _ => {}
        }
    }
    while !open.is_empty() {
        close(&mut open, &mut message);
    }
    message
}

fn close(open: &mut Vec<(u8, Vec<u8>)>, message: &mut Vec<u8>) {
    if let Some((field, outer)) = open.pop() {
        let inner = std::mem::replace(message, outer);
        nested(message, field, &inner);
    }
}

fn nested(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    key(message, field, 2);
    put_number(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn key(message: &mut Vec<u8>, field: u8, wire_type: u64) {
    put_number(message, u64::from(field) << 3 | wire_type);
}

/// A program that builds exactly this message; `None` when it is none. What looks like a message inside is one.
pub fn take_apart(mut message: &[u8]) -> Option<Vec<u8>> {
    let mut program = Vec::new();
    while !message.is_empty() {
        let (key, rest) = take_number(message);
        let field = u8::try_from(key >> 3).ok().filter(|field| *field > 0)?;
        let (number, rest) = take_number(rest);
        message = rest;
        match key & 7 {
            0 => {
                program.extend([b'v', field]);
                put_number(&mut program, number);
            }
            2 => {
                let (bytes, rest) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                message = rest;
                let text = bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
                match take_apart(bytes).filter(|inner| !text && build(inner) == bytes) {
                    Some(inner) => {
                        program.extend([b'(', field]);
                        program.extend(inner);
                        program.push(b')');
                    }
                    None => {
                        program.extend([b's', field]);
                        put_number(&mut program, number);
                        program.extend_from_slice(bytes);
                    }
                }
            }
            _ => return None,
        }
    }
    Some(program)
}

fn put_number(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn take_number(bytes: &[u8]) -> (u64, &[u8]) {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).wrapping_shl(7 * index as u32);
        if byte & 0x80 == 0 {
            return (number, &bytes[index + 1..]);
        }
    }
    (number, &bytes[bytes.len().min(10)..])
}
