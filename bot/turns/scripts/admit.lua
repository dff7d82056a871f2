-- A turn gets into the queue, for the first time or again, if there is room.

-- A thread in which many people ask has this many times its slots.
local CROWD = 4
-- About as long as an answer takes.
local YIELD_US = 30000000
-- The preferences that say how to answer.
local PREFERRED = {'model', 'persona', 'temperature', 'max_tokens', 'tools'}

-- One person can fill a thread's slots; then further slots are for people who have none there. Turns that
-- will be answered together have one slot.
local function is_thread_full(thread, person, joins, limit)
  -- The person of turns that will be answered together, as far as they follow each other; else false.
  local slots, has_one, group = 0, false, false
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    local known = redis.call('HMGET', key('turn', id), 'person', 'fence', 'joins')
    local its_group = known[2] == '0' and known[3] == '1' and known[1]
    if not its_group or its_group ~= group then slots = slots + 1 end
    has_one, group = has_one or known[1] == person, its_group
  end
  if slots < tonumber(limit) or joins and group == person then return false end
  return has_one or slots >= CROWD * limit
end

-- '' if there is room for one more turn.
local function refusal(person, person_limit, total_limit)
  if is_being_forgotten(platform_of(person), id_of(person)) then return 'forgetting' end
  local all, own = key('open'), key('open', person)
  person_limit, total_limit = tonumber(person_limit), tonumber(total_limit)
  if redis.call('SCARD', own) >= person_limit and count_turns(own) >= person_limit then return 'person' end
  if redis.call('ZCARD', all) < total_limit then return '' end
  -- The records of older turns have expired.
  redis.call('ZREMRANGEBYSCORE', all, '-inf', now_ms() - keep_ms())
  return redis.call('ZCARD', all) >= total_limit and 'full' or ''
end

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
  keep_in(thread, key('turn', id), key('context', id), key('files', id), mailbox)
  keep(key('open'), key('open', person))
end

-- Copies the current preferences to a turn: those of its thread over its channel over its server, and over all of them
-- the model of this question alone (`once`); and its person's own instructions.
local function copy_preferences(id, thread)
  local channel, server = string.match(thread, '^(([^:]*:[^:]*):[^:]*)')
  for _, name in ipairs(PREFERRED) do unset(id, 'preferred:' .. name) end
  for _, place in ipairs({(server or '') .. '::', (channel or '') .. ':', thread}) do
    for at, value in ipairs(redis.call('HMGET', key('preferences', place), unpack(PREFERRED))) do
      if value then set(id, 'preferred:' .. PREFERRED[at], value) end
    end
  end
  local once, own = get(id, 'once'), key('own', get(id, 'person') or '')
  if once then set(id, 'preferred:model', once) end
  local instructions = redis.call('HGET', own, 'instructions')
  if instructions then set(id, 'instructions', instructions) else unset(id, 'instructions') end
  -- What a guest of the page has saved goes with their cookie.
  if redis.call('PTTL', own) > 0 then keep(own) end
end

-- `fields` has those of the question.
local function store_turn(id, thread, person, fields, quota)
  set(id, 'state', 'queued', 'fence', 0, 'attempts', 0, 'thread', thread, 'person', person)
  for field, value in pairs(fields) do set(id, field, value) end
  reserve(id, person, thread, needs(quota))
  note_of(platform_of(thread), id_of(person), thread)
  note_speaker(thread, id_of(person))
  keep_in(thread, key('speakers', thread))
  copy_preferences(id, thread)
  enqueue(id, thread, person)
end

-- What a remembered turn has shown becomes its previous answer. Its end has cleared the rest (`store_outcome`).
local function enqueue_again(id, turn, quota)
  reserve(id, turn.person, turn.thread, needs(quota))
  if has(id, 'answer') then redis.call('HSETNX', key('turn', id), 'previous_answer', get(id, 'shown') or '') end
  set(id, 'state', 'queued', 'attempts', 0, 'shown', '')
  drop_steps(id)
  redis.call('DEL', key('thoughts', id))
  unset(id, 'restarts', 'ended')
  copy_preferences(id, turn.thread)
  enqueue(id, turn.thread, turn.person)
  -- They have to last as long as the context, which is kept anew.
  note_context(id, turn.thread)
end

-- The thread remembers the old question with its answer until there is a new answer. Without `files` they stay.
local function replace_question(id, text, left_out, files)
  if has(id, 'answer') and not has(id, 'question') then
    set(id, 'question', get(id, 'text'), 'question_files', get(id, 'files') or '')
  end
  set(id, 'text', text, 'left_out', left_out)
  if not files or files == (get(id, 'files') or '') then return end
  set(id, 'files', files)
  drop_files(get(id, 'lead') or id, id)
end

-- `fields`, `context` and `quota` are JSON: the fields of the question, the lines of its context, and what the person
-- and the server may use in a day, with an `estimate` of the tokens, and a
-- `money_estimate`, that the turn needs.
function verbs.admit(id, thread, person, fields, thread_limit, person_limit, total_limit, context, quota)
  local known = redis.call('HMGET', key('turn', id), 'state', 'thread', 'place', 'asked_at')
  fields = decoded(fields)
  if known[1] then
    -- It may be the same call, sent again because its answer was lost.
    local same = known[2] == thread and known[3] == fields.place and known[4] == fields.asked_at
    return known[1] ~= 'dropped' and same and 'admitted' or 'duplicate'
  end
  if redis.call('EXISTS', key('answered', id)) == 1 then return 'duplicate' end
  -- A refused person has spoken, but the thread does not become the bot's.
  if redis.call('EXISTS', key('speakers', thread)) == 1 then note_speaker(thread, id_of(person)) end
  if is_thread_full(thread, person, fields.joins, thread_limit) then return 'thread' end
  local full = refusal(person, person_limit, total_limit)
  quota = decoded(quota)
  if full == '' then full = quota_refusal(person, thread, quota, needs(quota)) end
  if full ~= '' then return full end

  store_turn(id, thread, person, fields, quota)
  store_context(id, thread, context)
  return 'admitted'
end

function verbs.check_room(thread, person, person_limit, total_limit, quota)
  local full = refusal(person, person_limit, total_limit)
  quota = decoded(quota)
  return full ~= '' and full or quota_refusal(person, thread, quota, needs(quota))
end
