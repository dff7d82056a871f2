-- The durable queue: one verb per call, each atomic. `script.py` puts the files of a verb's script together:
-- this one first, then those that its file needs.
--
-- KEYS[1] is the prefix of all keys, with the hash tag that keeps them in one slot.
-- ARGV[1] is the verb, ARGV[2] how long keys are kept (ms), the rest the verb's arguments in the order of
-- its function. If that differs by server, ARGV[2] is a JSON object: the times by the servers' ids, '' for all others,
-- and '*' for the longest.
--
-- docs/design/queue.md lists the keys, and the fields of a turn's record, `turn:<id>`. A flag is '1' or missing;
-- a list of ids has one in each line. What is JSON there is only passed on.
--
-- A thread with work is in exactly one of: ready; due, to be ready at a time, which for a running one is the end of
-- its lease; throttled.

local prefix = KEYS[1]
local verbs = {}

local LATE_ADMISSION_MS = 600000
-- Longer than any platform delivers a press again.
local PRESS_MS = 3600000
-- No platform asks for a longer pause.
local DAY_MS = 86400000
-- After its day, what was used is only corrected.
local SPENT_MS = 2 * DAY_MS
-- The sums of a day.
local USAGE_MS = 90 * DAY_MS
local MOST_WAKES = 100
-- What a record's `forget` drops: the question and what is remembered; the answer, too, at once; or that after a repair
-- without buttons.
local QUESTION_ONLY, WITH_ANSWER, AFTER_REPAIR = '1', '2', '3'

local function key(kind, ...)
  return prefix .. table.concat({kind, ...}, ':')
end

local KEPT = tonumber(ARGV[2]) and {[''] = tonumber(ARGV[2])} or cjson.decode(ARGV[2])

-- How long (ms) something of a thread is kept; without one, of what all servers share.
local function keep_ms(thread)
  local server = thread and string.match(thread, '^[^:]*:([^:]*)') or '*'
  return KEPT[server] or KEPT['']
end

local function keep_in(thread, ...)
  for _, name in ipairs({...}) do redis.call('PEXPIRE', name, keep_ms(thread)) end
end

local function keep(...)
  keep_in(nil, ...)
end

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

local function platform_of(thread)
  return string.match(thread, '^[^:]*')
end

-- A person's id, of which `person` has the key.
local function id_of(person)
  return string.match(person, '[^:]*$')
end

local function get(id, field)
  return redis.call('HGET', key('turn', id), field)
end

local function set(id, ...)
  redis.call('HSET', key('turn', id), ...)
end

local function unset(id, ...)
  redis.call('HDEL', key('turn', id), ...)
end

local function has(id, field)
  return redis.call('HEXISTS', key('turn', id), field) == 1
end

-- The JSON object of an argument; {} if it is ''.
local function decoded(json)
  return json and json ~= '' and cjson.decode(json) or {}
end

local function lines_of(text)
  local found = {}
  for line in string.gmatch(text, '[^\n]+') do table.insert(found, line) end
  return found
end

local function ids_of(id, field)
  return lines_of(get(id, field) or '')
end

local function add_id(id, field, one)
  local known = get(id, field) or ''
  set(id, field, known == '' and one or known .. '\n' .. one)
end

local function contains(ids, wanted)
  for _, one in ipairs(ids) do
    if one == wanted then return true end
  end
  return false
end

-- The last message of a reply; '' if it shows nothing.
local function last_message(id)
  local found = ids_of(id, 'message_ids')
  return found[#found] or ''
end

-- A value as it stands in keys and threads.
local function quoted(text)
  return (string.gsub(text, '[^%w_.~-]', function(letter) return string.format('%%%02X', string.byte(letter)) end))
end

-- A finite number for a sum.
local function natural(value)
  value = tonumber(value) or 0
  return value >= 0 and value < 2 ^ 52 and math.floor(value) or 0
end

local function record(id)
  local values = redis.call('HMGET', key('turn', id), 'state', 'fence', 'thread', 'person')
  return {state = values[1], fence = values[2], thread = values[3], person = values[4] or ''}
end

local function is_open(turn)
  return turn.state == 'queued' or turn.state == 'running'
end

local function close(id, person)
  redis.call('ZREM', key('open'), id)
  redis.call('SREM', key('open', person), id)
end

-- How many turns a set has, without those whose record has expired.
local function count_turns(name)
  for _, id in ipairs(redis.call('SMEMBERS', name)) do
    if redis.call('EXISTS', key('turn', id)) == 0 then redis.call('SREM', name, id) end
  end
  return redis.call('SCARD', name)
end

-- Whether a turn of another person waits or runs in the thread.
local function keeps_others_waiting(thread, person)
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    local other = get(id, 'person')
    if other and other ~= person then return true end
  end
  return false
end

-- A turn keeps its position when it is released, or while others of its thread run.
local function position_of(thread)
  local first = redis.call('LINDEX', key('mailbox', thread), 0)
  return first and get(first, 'position') or now_us()
end

local function make_ready(thread)
  local platform = platform_of(thread)
  local ready, wake = key('ready', platform), key('wake', platform)
  redis.call('ZREM', key('due', platform), thread)
  redis.call('ZADD', ready, position_of(thread), thread)
  -- A worker that is woken takes all that it can, so a few items wake every worker.
  redis.call('RPUSH', wake, '1')
  redis.call('LTRIM', wake, -MOST_WAKES, -1)
  keep(ready, wake)
end

local function make_ready_after(thread, delay)
  local due = key('due', platform_of(thread))
  redis.call('ZREM', key('ready', platform_of(thread)), thread)
  redis.call('ZADD', due, now_ms() + math.min(delay, DAY_MS), thread)
  keep(due)
end

-- A turn that waits for a person's consent is taken again.
local function wake_asking(id)
  local thread = get(id, 'asks') and get(id, 'state') == 'queued' and get(id, 'thread')
  unset(id, 'asks')
  if thread then make_ready(thread) end
end

local function drop_steps(id)
  redis.call('DEL', key('steps', id))
  unset(id, 'asks')
end

-- The person may run one more turn.
local function wake_throttled(person)
  local thread = redis.call('ZPOPMIN', key('throttled', person))[1]
  if thread then make_ready(thread) end
end

-- A turn leaves its thread. If it was first there, the next one does not wait for what it waited for, and its person
-- may run another turn.
local function leave_thread(id, turn)
  local thread, person, mailbox = turn.thread, turn.person, key('mailbox', turn.thread)
  local was_first = redis.call('LINDEX', mailbox, 0) == id
  redis.call('LREM', mailbox, 1, id)
  close(id, person)
  redis.call('SREM', key('running', person), id)
  if not was_first then return end
  redis.call('ZREM', key('ready', platform_of(thread)), thread)
  redis.call('ZREM', key('due', platform_of(thread)), thread)
  redis.call('ZREM', key('throttled', person), thread)
  if redis.call('LLEN', mailbox) > 0 then make_ready(thread) end
  wake_throttled(person)
end

-- The id of the thread's last remembered turn; '' if there is none.
local function last_remembered(thread)
  return redis.call('LINDEX', key('history', thread), -1) or ''
end

local function is_being_forgotten(platform, written)
  return redis.call('ZSCORE', prefix .. 'forgetting', 'person:' .. platform .. ':' .. written)
end
