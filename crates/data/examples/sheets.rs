//! Contact sheets and rates.
use lare_data::*;
use std::time::Instant;
fn main() {
    let t = Instant::now();
    let suite = Suite::new();
    println!("new {:?}", t.elapsed());
    let out = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    for split in [Split::Train, Split::Style, Split::Size, Split::Dense, Split::Hops] {
    for task in Task::ALL {
        let p = out.join(format!("{split}-{task}.png"));
        let _ = std::fs::remove_file(&p);
        let s = export::Selection { split, tasks: vec![task], count: 6, first: 0 };
        export::contact_sheet(&suite, &s, 3, &p).unwrap();
    }}
    for task in Task::ALL {
        let t = Instant::now();
        for i in 0..300 { std::hint::black_box(suite.sample(Split::Train, task, i)); }
        let a = t.elapsed();
        let t = Instant::now();
        for i in 0..3000 { std::hint::black_box(suite.question(Split::Train, task, i)); }
        println!("{task} {:.0}/s, described {:.0}/s", 300.0 / a.as_secs_f64(), 3000.0 / t.elapsed().as_secs_f64());
    }
}
