//! Every layout in small files of exactly its form, and files that are wrong.

#[cfg(test)]
#[cfg(feature = "parquet")]
mod columnar;
#[cfg(test)]
mod delimited;
#[cfg(test)]
mod made;
