//! What is done in Redis: one script each, so that nothing comes between looking and writing.
//!
//! A row is named by its slot and its number in it (`SEQ`). Scripts that a relay runs get its name, and those that write what only
//! the relay with the lease may know do nothing for another one. Deleting what a broker has is right for all of them.

/// The functions that all scripts begin with.
pub(super) const FUNCTIONS: &str = include_str!("rows.lua");

/// Relay, lease in milliseconds. Answers whether the lease is this relay's.
pub(super) const LEASE: &str = "\
local owner = call('GET', prefix .. ':lease')
if owner and owner ~= ARGV[1] then return 0 end
call('SET', prefix .. ':lease', ARGV[1], 'PX', ARGV[2])
return 1";

/// Relay.
pub(super) const LEAVE: &str = "if is_mine(ARGV[1]) then call('DEL', prefix .. ':lease') end return 0";

/// Rows of a page, bytes of a small row, slots. Answers the time and the first waiting rows of each. Those that were set aside come
/// first: they are older than others of their keys.
pub(super) const READ: &str = "\
local rows = {}
for at = 3, #ARGV do
  local before = #rows
  read_aside(rows, ARGV[at], 'waiting', 0, ARGV[1], tonumber(ARGV[2]))
  read_new(rows, ARGV[at], 0, ARGV[1] - (#rows - before), tonumber(ARGV[2]))
end
return {now(), rows}";

/// Slot, SEQ. Answers the body of a row.
pub(super) const BODY: &str = "\
local row = entry(ARGV[1], ARGV[2])
if not row then return call('HGET', aside(ARGV[1], ARGV[2]), 'body') end
for at = 1, #row, 2 do
  if row[at] == 'body' then return row[at + 1] end
end
return false";

/// Whether to keep them, pairs of slot and SEQ.
pub(super) const SETTLE: &str = "\
for at = 2, #ARGV, 2 do
  if ARGV[1] == '1' then put(ARGV[at], ARGV[at + 1], 'sent') else drop(ARGV[at], ARGV[at + 1]) end
end
return 0";

/// Relay, slot, SEQ, attempts before, state, error.
pub(super) const REFUSED: &str = "\
local slot, seq = ARGV[2], ARGV[3]
if not is_mine(ARGV[1]) or state_of(slot, seq) ~= 'waiting' then return 0 end
if (call('HGET', aside(slot, seq), 'attempts') or '0') ~= ARGV[4] then return 0 end
put(slot, seq, ARGV[5])
call('HSET', aside(slot, seq), 'attempts', ARGV[4] + 1, 'last_error', ARGV[6])
return 0";

/// Relay, slot, SEQ, why the row waits on.
pub(super) const NOTE: &str = "\
local slot, seq = ARGV[2], ARGV[3]
if not is_mine(ARGV[1]) or state_of(slot, seq) ~= 'waiting' then return 0 end
if entry(slot, seq) then put(slot, seq, 'waiting') end
call('HSET', aside(slot, seq), 'last_error', ARGV[4])
return 0";

/// Slot. Answers the keys that have failed or held rows.
pub(super) const BLOCKED: &str = "\
local found = call('HKEYS', keys('failed', ARGV[1]))
for _, key in ipairs(call('HKEYS', keys('held', ARGV[1]))) do found[#found + 1] = key end
return found";

/// Relay, pairs of slot and SEQ.
pub(super) const HOLD: &str = "\
if not is_mine(ARGV[1]) then return 0 end
for at = 2, #ARGV, 2 do
  if state_of(ARGV[at], ARGV[at + 1]) == 'waiting' then put(ARGV[at], ARGV[at + 1], 'held') end
end
return 0";

/// Relay, whether failed rows hold others, milliseconds that sent rows stay, slots. Answers whether there may be more old sent rows.
pub(super) const TIDY: &str = "\
if not is_mine(ARGV[1]) then return 0 end
local more = 0
for at = 4, #ARGV do
  local slot, old = ARGV[at], 0
  for _, seq in ipairs(call('ZRANGE', set('sent', slot), 0, 255)) do
    if now() - (call('HGET', aside(slot, seq), 'changed_at') or 0) < tonumber(ARGV[3]) then break end
    drop(slot, seq)
    old = old + 1
  end
  if old == 256 then more = 1 end
  for _, key in ipairs(call('HKEYS', keys('held', slot))) do
    if ARGV[2] == '0' or call('HEXISTS', keys('failed', slot), key) == 0 then let_go(slot, key) end
  end
end
return more";

/// Slot, SEQ before the first one, limit, states. Answers the time and the first rows of each state.
pub(super) const LIST: &str = "\
local rows = {}
for at = 4, #ARGV do
  read_aside(rows, ARGV[1], ARGV[at], ARGV[2], ARGV[3], -1)
  if ARGV[at] == 'waiting' then read_new(rows, ARGV[1], ARGV[2], tonumber(ARGV[3]), -1) end
end
return {now(), rows}";

/// State, slots. Answers how many rows there are.
pub(super) const COUNT: &str = "\
local count = 0
for at = 2, #ARGV do
  count = count + call('ZCARD', set(ARGV[1], ARGV[at]))
  if ARGV[1] == 'waiting' then count = count + call('XLEN', new(ARGV[at])) end
end
return count";

/// Slot, SEQ, whether it is sent again. Answers whether it had failed.
pub(super) const RELEASE: &str = "\
local slot, seq = ARGV[1], ARGV[2]
if state_of(slot, seq) ~= 'failed' then return 0 end
local key = call('HGET', aside(slot, seq), 'order_key')
if ARGV[3] == '1' then
  put(slot, seq, 'waiting')
  call('HSET', aside(slot, seq), 'attempts', '0')
else
  drop(slot, seq)
end
if key ~= '' and call('HEXISTS', keys('failed', slot), key) == 0 then let_go(slot, key) end
return 1";
