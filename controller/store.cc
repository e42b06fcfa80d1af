#include "controller/store.h"

#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>

namespace flowkeep {
namespace {

constexpr int kFormatVersion = 1;

// sequence is AUTOINCREMENT: a watcher's place stays valid when old events are removed.
constexpr const char* kTables = R"sql(
CREATE TABLE IF NOT EXISTS chains(
  name TEXT PRIMARY KEY, spec TEXT NOT NULL, revision INTEGER NOT NULL,
  created_at_s REAL NOT NULL, updated_at_s REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS chain_revisions(
  name TEXT NOT NULL, revision INTEGER NOT NULL, spec TEXT, at_s REAL NOT NULL,
  PRIMARY KEY(name, revision)) STRICT;
CREATE TABLE IF NOT EXISTS nodes(
  name TEXT PRIMARY KEY, registration TEXT NOT NULL, registered_at_s REAL NOT NULL,
  events_of_start_s REAL NOT NULL DEFAULT 0, events_read INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS events(
  sequence INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, node TEXT NOT NULL,
  node_sequence INTEGER, kind TEXT NOT NULL, chain TEXT NOT NULL, message TEXT NOT NULL,
  UNIQUE(node, at_s, node_sequence)) STRICT;
)sql";

std::string to_json(const google::protobuf::Message& message) {
  std::string json;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  assert(status.ok());
  return json;
}

}  // namespace

// A prepared statement. Columns and parameters count from 0.
class Store::Statement {
 public:
  Statement(Store& store, const char* sql) : store_(store) {
    if (sqlite3_prepare_v2(store.database_, sql, -1, &statement_, nullptr) != SQLITE_OK) {
      error_ = store.failure("prepare");
    }
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(int64_t value) {
    sqlite3_bind_int64(statement_, ++bound_, value);
    return *this;
  }
  Statement& bind(double value) {
    sqlite3_bind_double(statement_, ++bound_, value);
    return *this;
  }
  Statement& bind(const std::string& value) {
    sqlite3_bind_text(statement_, ++bound_, value.data(), static_cast<int>(value.size()),
                      SQLITE_TRANSIENT);
    return *this;
  }
  Statement& bind_null() {
    sqlite3_bind_null(statement_, ++bound_);
    return *this;
  }

  // True: a row is there. False: done.
  Result<bool> step() {
    if (error_) return *error_;
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return store_.failure("write or read");
  }
  Result<void> run() {
    const auto stepped = step();
    if (!stepped) return stepped.error();
    return {};
  }

  int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  double real(int column) const { return sqlite3_column_double(statement_, column); }
  std::string text(int column) const {
    const auto* bytes = sqlite3_column_text(statement_, column);
    if (bytes == nullptr) return {};
    return {reinterpret_cast<const char*>(bytes),
            static_cast<size_t>(sqlite3_column_bytes(statement_, column))};
  }
  Result<void> message(int column, google::protobuf::Message& into) const {
    const auto status = google::protobuf::util::JsonStringToMessage(text(column), &into);
    if (!status.ok()) {
      return internal_error(store_.path_, "holds a damaged record: " + status.ToString());
    }
    return {};
  }

 private:
  Store& store_;
  sqlite3_stmt* statement_ = nullptr;
  std::optional<Error> error_;
  int bound_ = 0;
};

// Rolls back unless committed.
class Store::Transaction {
 public:
  explicit Transaction(Store& store) : store_(store) {
    open_ =
        sqlite3_exec(store.database_, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr) == SQLITE_OK;
  }
  ~Transaction() {
    if (open_) sqlite3_exec(store_.database_, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  Result<void> commit() {
    if (!open_) return store_.failure("begin");
    if (sqlite3_exec(store_.database_, "COMMIT", nullptr, nullptr, nullptr) != SQLITE_OK) {
      return store_.failure("commit");
    }
    open_ = false;
    return {};
  }

 private:
  Store& store_;
  bool open_;
};

Store::Store(std::string path, int lock_fd, sqlite3* database)
    : path_(std::move(path)), lock_fd_(lock_fd), database_(database) {}

Store::~Store() {
  sqlite3_close(database_);
  ::close(lock_fd_);
}

Error Store::failure(const std::string& doing) const {
  return internal_error(path_, "the store failed to " + doing + ": " + sqlite3_errmsg(database_));
}

Result<std::unique_ptr<Store>> Store::open(const std::string& path) {
  const std::string lock_path = path + ".lock";
  const int lock_fd = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd < 0) {
    return invalid("--store", "cannot create \"" + lock_path + "\": " + std::strerror(errno) +
                                  "; the folder must exist and be writable");
  }
  if (::flock(lock_fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_fd);
    return unavailable("--store", "\"" + path + "\" is in use by another flowkeep-controller");
  }
  sqlite3* database = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &database,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Store> store(new Store(path, lock_fd, database));
  if (code != SQLITE_OK) {
    return invalid("--store", "cannot open \"" + path + "\": " + sqlite3_errmsg(database));
  }
  const auto created = store->create_tables();
  if (!created) return created.error();
  return store;
}

Result<void> Store::create_tables() {
  sqlite3_busy_timeout(database_, 5'000);  // a person reading the file with sqlite3
  const auto execute = [this](const std::string& sql) {
    return sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK;
  };
  if (!execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")) return failure("open");
  Statement version(*this, "PRAGMA user_version");
  const auto found = version.step();
  if (!found) return found.error();
  if (version.integer(0) > kFormatVersion) {
    return invalid("--store", "\"" + path_ + "\" has format " + std::to_string(version.integer(0)) +
                                  "; this program reads up to " + std::to_string(kFormatVersion));
  }
  if (!execute(kTables)) return failure("create its tables");
  if (!execute("PRAGMA user_version=" + std::to_string(kFormatVersion)))
    return failure("create its tables");
  return {};
}

Result<std::vector<StoredChain>> Store::chains() {
  const std::scoped_lock lock(mutex_);
  Statement select(
      *this, "SELECT name, spec, revision, created_at_s, updated_at_s FROM chains ORDER BY name");
  std::vector<StoredChain> chains;
  while (true) {
    const auto row = select.step();
    if (!row) return row.error();
    if (!*row) return chains;
    StoredChain chain;
    chain.name = select.text(0);
    const auto parsed = select.message(1, chain.spec);
    if (!parsed) return parsed.error();
    chain.revision = static_cast<uint32_t>(select.integer(2));
    chain.created_at_s = select.real(3);
    chain.updated_at_s = select.real(4);
    chains.push_back(std::move(chain));
  }
}

Result<std::optional<StoredChain>> Store::chain(const std::string& name) {
  auto all = chains();
  if (!all) return all.error();
  for (auto& chain : *all) {
    if (chain.name == name) return std::optional(std::move(chain));
  }
  return std::optional<StoredChain>();
}

Result<uint32_t> Store::next_revision(const std::string& name, uint32_t at_least) {
  const std::scoped_lock lock(mutex_);
  Statement select(*this, "SELECT coalesce(max(revision), 0) FROM chain_revisions WHERE name = ?");
  const auto row = select.bind(name).step();
  if (!row) return row.error();
  return std::max(static_cast<uint32_t>(select.integer(0)), at_least) + 1;
}

Result<bool> Store::knows_chain_name(const std::string& name) {
  const auto next = next_revision(name, 0);
  if (!next) return next.error();
  return *next > 1;
}

Result<void> Store::reserve_revision(const std::string& name, uint32_t revision, double now_s) {
  const std::scoped_lock lock(mutex_);
  Statement insert(*this,
                   "INSERT INTO chain_revisions(name, revision, spec, at_s) VALUES(?, ?, NULL, ?)");
  return insert.bind(name).bind(int64_t{revision}).bind(now_s).run();
}

Result<void> Store::release_revision(const std::string& name, uint32_t revision) {
  const std::scoped_lock lock(mutex_);
  Statement remove(*this,
                   "DELETE FROM chain_revisions WHERE name = ? AND revision = ? AND spec IS NULL");
  return remove.bind(name).bind(int64_t{revision}).run();
}

Result<void> Store::put_chain(const StoredChain& chain) {
  const std::scoped_lock lock(mutex_);
  const std::string spec = to_json(chain.spec);
  Transaction transaction(*this);
  Statement current(
      *this,
      "INSERT OR REPLACE INTO chains(name, spec, revision, created_at_s, updated_at_s) "
      "VALUES(?, ?, ?, ?, ?)");
  current.bind(chain.name).bind(spec).bind(int64_t{chain.revision});
  auto done = current.bind(chain.created_at_s).bind(chain.updated_at_s).run();
  if (!done) return done;
  Statement history(
      *this,
      "INSERT OR REPLACE INTO chain_revisions(name, revision, spec, at_s) VALUES(?, ?, ?, ?)");
  done = history.bind(chain.name)
             .bind(int64_t{chain.revision})
             .bind(spec)
             .bind(chain.updated_at_s)
             .run();
  if (!done) return done;
  Statement prune(*this, "DELETE FROM chain_revisions WHERE name = ? AND revision <= ?");
  done = prune.bind(chain.name).bind(int64_t{chain.revision} - int64_t{kRevisionsKept}).run();
  if (!done) return done;
  return transaction.commit();
}

Result<void> Store::delete_chain(const std::string& name, double now_s) {
  const std::scoped_lock lock(mutex_);
  Transaction transaction(*this);
  // A name that only a node knew becomes known: its removal is now wanted.
  Statement known(
      *this,
      "INSERT OR IGNORE INTO chain_revisions(name, revision, spec, at_s) VALUES(?, 1, '{}', ?)");
  auto done = known.bind(name).bind(now_s).run();
  if (!done) return done;
  Statement remove(*this, "DELETE FROM chains WHERE name = ?");
  done = remove.bind(name).run();
  if (!done) return done;
  return transaction.commit();
}

Result<std::vector<StoredNode>> Store::nodes() {
  const std::scoped_lock lock(mutex_);
  Statement select(*this, "SELECT registration, registered_at_s FROM nodes ORDER BY name");
  std::vector<StoredNode> nodes;
  while (true) {
    const auto row = select.step();
    if (!row) return row.error();
    if (!*row) return nodes;
    StoredNode node;
    const auto parsed = select.message(0, node.registration);
    if (!parsed) return parsed.error();
    node.registered_at_s = select.real(1);
    nodes.push_back(std::move(node));
  }
}

Result<void> Store::put_node(const StoredNode& node) {
  const std::scoped_lock lock(mutex_);
  Statement upsert(*this,
                   "INSERT INTO nodes(name, registration, registered_at_s) VALUES(?, ?, ?) "
                   "ON CONFLICT(name) DO UPDATE SET registration = excluded.registration");
  return upsert.bind(node.registration.name())
      .bind(to_json(node.registration))
      .bind(node.registered_at_s)
      .run();
}

Result<void> Store::insert_event(const v1::Event& event, std::optional<uint64_t> node_sequence) {
  Statement insert(*this,
                   "INSERT OR IGNORE INTO events(at_s, node, node_sequence, kind, chain, message) "
                   "VALUES(?, ?, ?, ?, ?, ?)");
  insert.bind(event.at_s()).bind(event.node());
  if (node_sequence) {
    insert.bind(static_cast<int64_t>(*node_sequence));
  } else {
    insert.bind_null();
  }
  const auto done = insert.bind(event.kind()).bind(event.chain()).bind(event.message()).run();
  if (!done) return done;
  Statement prune(*this,
                  "DELETE FROM events WHERE sequence <= (SELECT max(sequence) FROM events) - ?");
  return prune.bind(int64_t{kEventsKept}).run();
}

Result<uint64_t> Store::add_event(const v1::Event& event) {
  {
    const std::scoped_lock lock(mutex_);
    Transaction transaction(*this);
    auto done = insert_event(event, std::nullopt);
    if (!done) return done.error();
    done = transaction.commit();
    if (!done) return done.error();
  }
  return last_event_sequence();
}

Result<uint64_t> Store::add_node_events(const std::string& node, double node_started_at_s,
                                        const std::vector<NodeEvent>& events) {
  {
    const std::scoped_lock lock(mutex_);
    Transaction transaction(*this);
    uint64_t read = 0;
    for (const auto& [sequence, event] : events) {
      const auto done = insert_event(event, sequence);
      if (!done) return done.error();
      read = std::max(read, sequence);
    }
    Statement cursor(*this,
                     "UPDATE nodes SET events_of_start_s = ?, events_read = ? WHERE name = ?");
    auto done = cursor.bind(node_started_at_s).bind(static_cast<int64_t>(read)).bind(node).run();
    if (!done) return done.error();
    done = transaction.commit();
    if (!done) return done.error();
  }
  return last_event_sequence();
}

Result<uint64_t> Store::node_event_cursor(const std::string& node, double node_started_at_s) {
  const std::scoped_lock lock(mutex_);
  Statement select(*this, "SELECT events_read FROM nodes WHERE name = ? AND events_of_start_s = ?");
  const auto row = select.bind(node).bind(node_started_at_s).step();
  if (!row) return row.error();
  return *row ? static_cast<uint64_t>(select.integer(0)) : 0;
}

Result<std::vector<v1::Event>> Store::events(uint64_t after, uint32_t limit,
                                             const std::string& chain) {
  const std::scoped_lock lock(mutex_);
  constexpr const char* kNewest =
      "SELECT * FROM (SELECT sequence, at_s, node, kind, chain, message FROM events "
      "WHERE sequence > ? AND (? = '' OR chain = ?) ORDER BY sequence DESC LIMIT ?) ORDER BY "
      "sequence";
  constexpr const char* kFollowing =
      "SELECT sequence, at_s, node, kind, chain, message FROM events "
      "WHERE sequence > ? AND (? = '' OR chain = ?) ORDER BY sequence LIMIT ?";
  Statement select(*this, after == 0 ? kNewest : kFollowing);
  select.bind(static_cast<int64_t>(after)).bind(chain).bind(chain).bind(int64_t{limit});
  std::vector<v1::Event> events;
  while (true) {
    const auto row = select.step();
    if (!row) return row.error();
    if (!*row) return events;
    v1::Event event;
    event.set_sequence(static_cast<uint64_t>(select.integer(0)));
    event.set_at_s(select.real(1));
    event.set_node(select.text(2));
    event.set_kind(select.text(3));
    event.set_chain(select.text(4));
    event.set_message(select.text(5));
    events.push_back(std::move(event));
  }
}

Result<uint64_t> Store::last_event_sequence() {
  const std::scoped_lock lock(mutex_);
  Statement select(*this, "SELECT coalesce(max(sequence), 0) FROM events");
  const auto row = select.step();
  if (!row) return row.error();
  return static_cast<uint64_t>(select.integer(0));
}

}  // namespace flowkeep
