//! The size of the file: pages that are free, given back to the file system where it is worth the wear.

use super::core::Core;
use super::row::number;
use super::schema::PAGE_BYTES;

/// Pages given back to the file system in one go.
const VACUUM_PAGES: u64 = 128;
/// The file is made smaller where more than a fourth of it is free, and more than this.
const FREE_SHARE: u64 = 4;
const FREE_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// The tables that may be large beside the records.
const OTHERS: [&str; 4] = ["dedup", "command", "sqlite_autoindex_command_1", "fold"];

impl Core {
    /// Pages of the file, and those of them that are free.
    pub(super) fn pages(&self) -> rusqlite::Result<(u64, u64)> {
        let pragma = |name: &str| self.conn.pragma_query_value(None, name, |row| row.get(0)).map(number);
        Ok((pragma("page_count")?, pragma("freelist_count")?))
    }

    /// Makes the file a little smaller, if it is worth it; false when there is nothing more to gain.
    pub(super) fn shrink(&mut self) -> rusqlite::Result<bool> {
        let (pages, free) = self.pages()?;
        let full = self.keeper.is_full();
        let much = free > pages / FREE_SHARE && free.saturating_mul(PAGE_BYTES) > FREE_BYTES_MIN;
        if free == 0 || !(full || much) {
            return Ok(false);
        }
        {
            // Each step of the statement moves one page.
            let mut statement = self.conn.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        if full {
            self.cut_wal()?;
        }
        Ok(self.pages()?.1 < free)
    }

    /// Writes the WAL back and gives its room to the file system. Readers are short, so that this hardly ever waits.
    pub(super) fn cut_wal(&self) -> rusqlite::Result<()> {
        self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_row| Ok(()))
    }

    pub(super) fn count_others(&mut self, now_ms: u64) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached(
            "SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE aggregate = TRUE AND name = ?1",
        )?;
        let mut bytes: u64 = 0;
        for table in OTHERS {
            let table: i64 = statement.query_row([table], |row| row.get(0))?;
            bytes = bytes.saturating_add(number(table));
        }
        self.keeper.others = Some((bytes, now_ms));
        let thinned: bool = self
            .conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM forgotten WHERE cause LIKE 'thinned%')")?
            .query_row([], |row| row.get(0))?;
        self.keeper.sparse |= thinned;
        Ok(())
    }
}
