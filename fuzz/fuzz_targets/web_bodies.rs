//! Bodies of requests to lcroute-web for an invitation; and requests of host programs to the
//! daemon. A link leads only to the named page.
#![no_main]
#![allow(dead_code)]

use lcroute_control::Request;
use libfuzzer_sys::fuzz_target;
use librecast::plain::is_name;

// a module of a program, not of a library
#[path = "../../web/server/src/wanted.rs"]
mod wanted;

use wanted::Wanted;

fuzz_target!(init: lcroute_fuzz::seeds::write("web_bodies"), |data: &[u8]| {
    if let Ok(wanted) = Wanted::read(data) {
        let request = wanted.request();
        let written = serde_json::to_vec(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_slice::<Request>(&written).expect("it was written"), request);
        let link = wanted.link("lct1x").expect("it was looked at");
        assert!(link.starts_with("https://") || link.starts_with("http://"), "{link}");
        assert!(link.ends_with("#lct1x") && link.matches('#').count() == 1, "{link}");
        assert!(is_name(&link), "{link:?}");
    }
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let written = serde_json::to_vec(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_slice::<Request>(&written).expect("it was written"), request);
    }
});
