#!lua flags=allow-oom
-- The rows of an outbox, as its scripts see them. Each script is this text and a few lines of its own. They run without memory, too:
-- they make room.
--
-- PREFIX:new:SLOT       stream: rows as they were added, which no try has set aside; ids are 0-SEQ
-- PREFIX:row:SLOT:SEQ   hash: a row that was set aside, with its state
-- PREFIX:STATE:SLOT     sorted set: the SEQ of rows that were set aside in this state
-- PREFIX:STATE-keys:SLOT  hash: sharding keys of failed or held rows, and how many there are
-- PREFIX:lease          the relay that may send
local prefix, call = KEYS[1], redis.call
local NAMES = {'topic', 'order_key', 'unique_id', 'flag', 'properties', 'bytes', 'created_at', 'attempts', 'last_error',
  'changed_at'}

local function new(slot) return prefix .. ':new:' .. slot end
local function set(state, slot) return prefix .. ':' .. state .. ':' .. slot end
local function keys(state, slot) return prefix .. ':' .. state .. '-keys:' .. slot end
local function aside(slot, seq) return prefix .. ':row:' .. slot .. ':' .. seq end

local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function is_mine(relay) return call('GET', prefix .. ':lease') == relay end

local function entry(slot, seq)
  local id = '0-' .. seq
  local found = call('XRANGE', new(slot), id, id)[1]
  return found and found[2]
end

local function state_of(slot, seq)
  return entry(slot, seq) and 'waiting' or call('HGET', aside(slot, seq), 'state')
end

-- Counts the key of a row that is failed or held.
local function tally(state, slot, seq, by)
  if state ~= 'failed' and state ~= 'held' then return end
  local key = call('HGET', aside(slot, seq), 'order_key')
  if key ~= '' and call('HINCRBY', keys(state, slot), key, by) <= 0 then call('HDEL', keys(state, slot), key) end
end

-- Takes a row that was set aside out of its state. Says whether it is there.
local function take_out(slot, seq)
  local state = call('HGET', aside(slot, seq), 'state')
  if not state then return false end
  call('ZREM', set(state, slot), seq)
  tally(state, slot, seq, -1)
  return true
end

-- Sets a row aside in this state, unless it is gone.
local function put(slot, seq, state)
  local row = entry(slot, seq)
  if row then
    call('HSET', aside(slot, seq), 'attempts', '0', unpack(row))
    call('XDEL', new(slot), '0-' .. seq)
  elseif not take_out(slot, seq) then
    return
  end
  call('HSET', aside(slot, seq), 'state', state, 'changed_at', now())
  call('ZADD', set(state, slot), seq, seq)
  tally(state, slot, seq, 1)
end

local function drop(slot, seq)
  if call('XDEL', new(slot), '0-' .. seq) == 0 and take_out(slot, seq) then call('DEL', aside(slot, seq)) end
end

-- Lets the held rows of a key go, all at once, so that they are read in their order.
local function let_go(slot, key)
  for _, seq in ipairs(call('ZRANGE', set('held', slot), 0, -1)) do
    if call('HGET', aside(slot, seq), 'order_key') == key then put(slot, seq, 'waiting') end
  end
end

-- Adds up to `limit` rows of a state after `after` to `rows`, with bodies if a row has no more than `small` bytes.
local function read_aside(rows, slot, state, after, limit, small)
  for _, seq in ipairs(call('ZRANGEBYSCORE', set(state, slot), '(' .. after, '+inf', 'LIMIT', 0, limit)) do
    local row = call('HMGET', aside(slot, seq), unpack(NAMES))
    local body = tonumber(row[6] or 0) <= small and call('HGET', aside(slot, seq), 'body')
    if row[1] then
      rows[#rows + 1] = {slot, seq, state, body, unpack(row)}
    else
      -- Somebody else has deleted it.
      call('ZREM', set(state, slot), seq)
    end
  end
end

local function read_new(rows, slot, after, limit, small)
  while limit > 0 do
    -- A few at a time: a row may have megabytes.
    local found = call('XRANGE', new(slot), '(0-' .. after, '+', 'COUNT', math.min(limit, 8))
    if #found == 0 then return end
    for _, one in ipairs(found) do
      local fields, row = {}, {}
      for at = 1, #one[2], 2 do fields[one[2][at]] = one[2][at + 1] end
      for at, name in ipairs(NAMES) do row[at] = fields[name] or false end
      after = string.sub(one[1], 3)
      local body = tonumber(row[6] or 0) <= small and fields.body
      rows[#rows + 1] = {slot, after, 'waiting', body or false, unpack(row)}
    end
    limit = limit - #found
  end
end
