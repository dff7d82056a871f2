-- A worker takes the turn that is next.

-- Bytes of the questions that are answered together: about as many as one question may have.
local JOINED_BYTES = 64000
-- Further threads wait for the next call.
local DUE_AT_ONCE = 100

-- The thread's first turn and its record; nothing if none is left.
local function first_of(thread)
  while true do
    local id = redis.call('LINDEX', key('mailbox', thread), 0)
    if not id then return end
    local turn = record(id)
    if turn.thread then return id, turn end
    -- Its record has expired.
    redis.call('LPOP', key('mailbox', thread))
    redis.call('ZREM', key('open'), id)
  end
end

-- The milliseconds since a turn was admitted, or asked for again.
local function open_for(id)
  return now_ms() - (tonumber(redis.call('ZSCORE', key('open'), id)) or now_ms())
end

-- The turns that wait behind one which was taken, without those that are answered with it.
local function waiting_behind(id, thread)
  local waiting = {}
  for _, one in ipairs(redis.call('LRANGE', key('mailbox', thread), 1, -1)) do
    local known = redis.call('HMGET', key('turn', one), 'state', 'lead')
    if known[1] and known[2] ~= id then table.insert(waiting, one) end
  end
  return waiting
end

-- The text of earlier attempts answers a question that was edited meanwhile. It stays until there is text
-- of the new answer. Text without a message was never visible.
local function begin_anew(id)
  local shown = get(id, 'shown') or ''
  local is_visible = last_message(id) ~= '' and shown ~= ''
  if is_visible then redis.call('HSETNX', key('turn', id), 'previous_answer', shown) end
  set(id, 'attempts', 0, 'shown', '')
  unset(id, 'edited_since_take', 'max_progress', 'said', 'below', 'outcome', 'ended', 'by', 'cut')
  drop_steps(id)
  redis.call('HINCRBY', key('turn', id), 'restarts', 1)
end

-- A person's turn runs beyond the limit if another person waits behind it in the thread.
local function may_run(id, turn, limit)
  local person, running = turn.person, key('running', turn.person)
  if redis.call('SISMEMBER', running, id) == 1 then return true end
  if redis.call('SCARD', running) < tonumber(limit) then return true end
  return count_turns(running) < tonumber(limit) or keeps_others_waiting(turn.thread, person)
end

-- The turns of the same person that wait directly behind a turn are answered with it, if they may be.
local function join_followers(id, turn)
  if not has(id, 'joins') then return end
  local size = redis.call('HSTRLEN', key('turn', id), 'text')
  for _, one in ipairs(redis.call('LRANGE', key('mailbox', turn.thread), 1, -1)) do
    local known = redis.call('HMGET', key('turn', one), 'person', 'fence', 'joins', 'state')
    size = size + redis.call('HSTRLEN', key('turn', one), 'text')
    local waits = known[2] == '0' and known[3] == '1' and known[4] == 'queued'
    if known[1] ~= turn.person or not waits or size > JOINED_BYTES then break end
    set(one, 'lead', id)
    add_id(id, 'joined', one)
  end
end

-- If others wait behind a turn when it is taken, people see several questions before the first answer. Then
-- each of these answers refers to its question.
local function note_several(id, thread)
  local waiting = waiting_behind(id, thread)
  if #waiting == 0 then return end
  for _, one in ipairs({id, unpack(waiting)}) do set(one, 'refers', '1') end
end

-- When each question was asked that is answered with this one, its text and its files.
local function joined_questions(id)
  local found = {}
  for at, one in ipairs(ids_of(id, 'joined')) do
    found[at] = redis.call('HMGET', key('turn', one), 'asked_at', 'text', 'files')
  end
  return found
end

local function make_due_ready(platform)
  local due = redis.call('ZRANGEBYSCORE', key('due', platform), '-inf', now_ms(), 'LIMIT', 0, DUE_AT_ONCE)
  for _, thread in ipairs(due) do make_ready(thread) end
end

-- The next thread that may be taken, with its first turn and that one's record; nothing if there is none. The lease of
-- a turn that the worker answers (`own`) may have ended in an outage: it is renewed.
local function next_to_take(platform, own, lease, person_limit)
  while true do
    local thread = redis.call('ZPOPMIN', key('ready', platform))[1]
    if not thread then break end
    local id, turn = first_of(thread)
    if id and turn.state == 'running' and contains(own, id) then
      make_ready_after(thread, lease)
    elseif id and may_run(id, turn, person_limit) then
      return thread, id, turn
    elseif id then
      redis.call('ZADD', key('throttled', turn.person), position_of(thread), thread)
      keep(key('throttled', turn.person))
    end
  end
  redis.call('DEL', key('wake', platform))
end

-- The milliseconds until the next thread is due.
local function next_due(platform)
  local at = redis.call('ZRANGE', key('due', platform), 0, 0, 'WITHSCORES')[2]
  return at and at - now_ms() or DAY_MS
end

local function lease_to(worker, thread, id, turn, lease)
  local name = key('turn', id)
  make_ready_after(thread, lease)
  redis.call('SADD', key('running', turn.person), id)
  keep(key('running', turn.person))
  if has(id, 'edited_since_take') then begin_anew(id) end
  -- What an attempt before has thought belongs to its words, unless these stay or were steps.
  local stays = (get(id, 'outcome') or '') ~= '' or redis.call('EXISTS', key('steps', id)) == 1
  if not stays then redis.call('DEL', key('thoughts', id)) end
  unset(id, 'lead', 'asks') -- the turn that it was to be answered with is gone
  set(id, 'state', 'running', 'worker', worker)
  local fence = redis.call('HINCRBY', name, 'fence', 1)
  redis.call('HINCRBY', name, 'attempts', 1)
  if fence == 1 then
    -- The last message of the reply before.
    set(id, 'above', last_message(redis.call('GET', key('newest', thread)) or ''))
    join_followers(id, turn)
    note_several(id, thread)
  end
end

-- Takes a turn of the first platform that has one, for `lease` ms; `own` are those that the worker answers, an id a
-- line. If `holds_due` is '1', threads that are due stay where they are. Returns {thread, id, the record as names and
-- values, its context, the questions that are answered with it, how long (ms) it has waited, its journal as names and
-- values, its effects, what was thought and for how long}, or in how many ms the next thread is due.
function verbs.take(worker, own, lease, person_limit, holds_due, ...)
  local wait = DAY_MS
  own = lines_of(own)
  for _, platform in ipairs({...}) do
    if holds_due == '' then make_due_ready(platform) end
    local thread, id, turn = next_to_take(platform, own, lease, person_limit)
    if thread then
      lease_to(worker, thread, id, turn, lease)
      local fields, context = redis.call('HGETALL', key('turn', id)), redis.call('LRANGE', key('context', id), 0, -1)
      local steps, effects = redis.call('HGETALL', key('steps', id)), redis.call('SMEMBERS', key('effects', id))
      local thought = redis.call('HMGET', key('thoughts', id), 'text', 'seconds')
      return {thread, id, fields, context, joined_questions(id), open_for(id), steps, effects, thought}
    end
    wait = math.min(wait, next_due(platform))
  end
  return math.max(wait, 0)
end

function verbs.others_wait(id, thread)
  return #waiting_behind(id, thread) > 0 and 1 or 0
end
