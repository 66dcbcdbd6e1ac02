//! By which names a server on a loopback address may be called.
//!
//! A page anywhere can have its own name lead to 127.0.0.1 after it was loaded (DNS rebinding). Its scripts then reach this
//! server as if it were theirs, past the browser's rules on other origins. What they cannot change is the name in `Host`.

use crate::error::Problem;
use std::net::{IpAddr, Ipv6Addr};

/// Refuses a request to another name than this machine's: `localhost`, a loopback address, or one of `names`.
///
/// # Errors
/// 403.
pub fn check(host: Option<&str>, names: &[String]) -> Result<(), Problem> {
    let Some(name) = host.and_then(name_of) else { return Err(Problem::host(host)) };
    let is_known = is_loopback(name) || names.iter().any(|known| known.eq_ignore_ascii_case(name));
    if is_known { Ok(()) } else { Err(Problem::host(host)) }
}

/// The name before the port: `localhost` of `localhost:8080`, `[::1]` of `[::1]:8080`.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.rfind(']') {
        Some(end) => host.split_at(end + 1),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

fn is_loopback(name: &str) -> bool {
    let six = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match six {
        Some(six) => six.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        // The last dot of a full name says nothing.
        None if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") => true,
        None => name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() && address.is_loopback()),
    }
}

/// Whether this is a host's name alone, without a port, a path or a scheme.
pub fn is_name(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_loopback_answers_to_the_names_of_this_machine_alone() {
        let names = ["lare.internal".to_owned()];
        let ok = |host| check(Some(host), &names).is_ok();
        for good in [
            "localhost",
            "LocalHost:8080",
            "localhost.:1",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.1.2.3:1",
            "[::1]",
            "[::1]:8080",
            "lare.internal:8080",
            "LARE.internal",
        ] {
            assert!(ok(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "xlocalhost",
            "10.0.0.1",
            "0.0.0.0",
            "[::2]",
            "::1",
            "[::1",
            "localhost:",
            "localhost:8080:1",
            "localhost:a",
            "user@localhost",
            "localhost/..",
            "not.lare.internal",
        ] {
            assert!(!ok(bad), "{bad}");
        }
        assert_eq!(check(None, &names).unwrap_err().status, 403);
    }

    #[test]
    fn a_name_is_no_url() {
        assert!(is_name("lare.internal") && is_name("box"));
        assert!(!["", "http://box", "box:80", "box/", "a b", "*"].into_iter().any(is_name));
    }
}
