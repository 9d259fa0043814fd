//! The control socket of a mount: what the commands that look into it ask its daemon.
//!
//! A client connects to a unix stream socket, writes one line of JSON and is answered by one, after which the daemon ends
//! the connection:
//!
//! ```text
//! {"version":1,"ask":"about"}
//! {"version":1,"answer":{"mountpoint":"/mnt", …}}    or    {"version":1,"error":"…"}
//! ```
//!
//! [`protocol`] has what can be asked and what is answered. [`client`] finds the socket of a mount and asks:
//!
//! ```no_run
//! # use std::path::Path;
//! use plyfs::control::{client, protocol::{About, Ask}};
//! let socket = client::of_mount(Path::new("/mnt"))?;
//! let about: About = socket.ask(&Ask::About)?;
//! # Ok::<(), plyfs::error::Error>(())
//! ```
//!
//! Sockets are in a directory of their owner alone, `$XDG_RUNTIME_DIR/plyfs` or `/run/plyfs` (`place.rs`), and are called
//! by the device number of the mount and the daemon's process id. A daemon serves its own user and root.

pub mod client;
mod place;
pub mod protocol;
mod server;

pub use self::server::Server;
