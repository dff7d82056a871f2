-- A turn gets into the queue, for the first time or again.

-- About as long as an answer takes.
local YIELD_US = 30000000
-- The preferences that say how to answer.
local PREFERRED = {'model', 'persona', 'temperature', 'max_tokens'}

-- Turns are taken in the order of their admission. Each further open turn of the same person counts as half a
-- minute, so that others do not wait for all questions of one person.
local function next_position(person)
  return now_us() + redis.call('SCARD', key('open', person)) * YIELD_US
end

-- If the thread is throttled for its first turn's person, another person does not wait for that.
local function wake_for_another(thread, person)
  local first = record(redis.call('LINDEX', key('mailbox', thread), 0))
  if first.person == person then return end
  if redis.call('ZREM', key('throttled', first.person), thread) == 1 then make_ready(thread) end
end

local function enqueue(id, thread, person)
  local mailbox = key('mailbox', thread)
  redis.call('HSET', key('turn', id), 'position', next_position(person))
  redis.call('ZADD', key('open'), now_ms(), id)
  redis.call('SADD', key('open', person), id)
  if redis.call('RPUSH', mailbox, id) == 1 then
    make_ready(thread)
  else
    wake_for_another(thread, person)
  end
  keep(key('turn', id), mailbox, key('open'), key('open', person))
end

-- Copies the current preferences to a turn: those of its thread over its channel over its server.
local function copy_preferences(id, thread)
  local channel, server = string.match(thread, '^(([^:]*:[^:]*):[^:]*)')
  local copied = {}
  for _, place in ipairs({(server or '') .. '::', (channel or '') .. ':', thread}) do
    local found = redis.call('HMGET', key('preferences', place), unpack(PREFERRED))
    for at, name in ipairs(PREFERRED) do copied[name] = found[at] or copied[name] end
  end
  redis.call('HSET', key('turn', id), 'preferences', next(copied) and cjson.encode(copied) or '')
end

-- `fields` has those of the question.
local function store_turn(id, thread, person, fields, quota)
  redis.call('HSET', key('turn', id), 'state', 'queued', 'fence', 0, 'attempts', 0, 'thread', thread, 'person', person)
  for field, value in pairs(fields) do redis.call('HSET', key('turn', id), field, value) end
  reserve(id, person, thread, 1, natural(quota.estimate))
  note_of(platform_of(thread), id_of(person), thread)
  note_speaker(thread, id_of(person))
  keep(key('speakers', thread))
  copy_preferences(id, thread)
  enqueue(id, thread, person)
end

-- `last` is the thread's last remembered turn. What the turn has shown becomes its previous answer.
local function enqueue_again(id, turn, last, quota)
  local name = key('turn', id)
  reserve(id, turn.person, turn.thread, 1, natural(quota.estimate))
  if last == id then
    redis.call('HSETNX', name, 'previous_answer', redis.call('HGET', name, 'shown') or '')
    recall_question(id, turn.thread)
  end
  redis.call('HSET', name, 'state', 'queued', 'attempts', 0, 'shown', '')
  redis.call('HDEL', name, 'stop', 'end', 'restarts', 'max_progress', 'more')
  copy_preferences(id, turn.thread)
  enqueue(id, turn.thread, turn.person)
end
