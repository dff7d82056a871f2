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
  set(id, 'position', next_position(person))
  redis.call('ZADD', key('open'), now_ms(), id)
  redis.call('SADD', key('open', person), id)
  if redis.call('RPUSH', mailbox, id) == 1 then
    make_ready(thread)
  else
    wake_for_another(thread, person)
  end
  keep(key('turn', id), key('context', id), mailbox, key('open'), key('open', person))
end

-- Copies the current preferences to a turn: those of its thread over its channel over its server.
local function copy_preferences(id, thread)
  local channel, server = string.match(thread, '^(([^:]*:[^:]*):[^:]*)')
  for _, name in ipairs(PREFERRED) do unset(id, 'preferred:' .. name) end
  for _, place in ipairs({(server or '') .. '::', (channel or '') .. ':', thread}) do
    for at, value in ipairs(redis.call('HMGET', key('preferences', place), unpack(PREFERRED))) do
      if value then set(id, 'preferred:' .. PREFERRED[at], value) end
    end
  end
end

-- `fields` has those of the question.
local function store_turn(id, thread, person, fields, quota)
  set(id, 'state', 'queued', 'fence', 0, 'attempts', 0, 'thread', thread, 'person', person)
  for field, value in pairs(fields) do set(id, field, value) end
  reserve(id, person, thread, 1, natural(quota.estimate))
  note_of(platform_of(thread), id_of(person), thread)
  note_speaker(thread, id_of(person))
  keep(key('speakers', thread))
  copy_preferences(id, thread)
  enqueue(id, thread, person)
end

-- What a remembered turn has shown becomes its previous answer. Its end has cleared the rest (`store_outcome`).
local function enqueue_again(id, turn, quota)
  reserve(id, turn.person, turn.thread, 1, natural(quota.estimate))
  if has(id, 'answer') then redis.call('HSETNX', key('turn', id), 'previous_answer', get(id, 'shown') or '') end
  set(id, 'state', 'queued', 'attempts', 0, 'shown', '')
  unset(id, 'restarts', 'ended')
  copy_preferences(id, turn.thread)
  enqueue(id, turn.thread, turn.person)
  -- They have to last as long as the context, which is kept anew.
  note_context(id, turn.thread)
end

-- The thread remembers the old question with its answer until there is a new answer.
local function replace_question(id, text, left_out)
  if has(id, 'answer') then redis.call('HSETNX', key('turn', id), 'question', get(id, 'text')) end
  set(id, 'text', text, 'left_out', left_out)
end
