use lare_data::*;
fn main() {
    let suite = Suite::new();
    let mut w = std::collections::BTreeSet::new();
    for split in Split::ALL { for task in Task::ALL { for i in 0..3000 {
        let q = suite.question(split, task, i);
        let mut t = vec![q.text, q.answer];
        for s in q.steps { t.push(s.says); t.push(s.reads); }
        for s in t { for x in s.split(|c: char| !c.is_ascii_alphabetic()) { if x.len() > 1 || x == "a" { w.insert(x.to_owned()); } } }
    }}}
    println!("{}", w.into_iter().collect::<Vec<_>>().join(" "));
}
