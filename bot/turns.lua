-- The durable queue: one verb per call, each atomic.
--
-- Older and newer versions may be at work beside this one: fields that are not known here stay as they
-- are, and a value that cannot be read counts as missing. No value may end a script halfway, for what
-- it has done by then stays done.
--
-- KEYS[1] is the prefix of all keys, with the hash tag that keeps them in one partition.
-- ARGV[1] is the verb, ARGV[2] how long keys are kept (ms), the rest the verb's arguments in the
-- order of its function below.
--
-- A thread with work stands in exactly one place: in line, in later, in waiting or in held.
--
--   line:<platform>      sorted set of threads that a worker may have, by the place of their first turn
--   ready:<platform>     stream of tokens, at least one for each thread in line; whoever has one may
--                        take the thread that is first in line then
--   held:<platform>      hash: the thread that was taken with a token
--   later:<platform>     sorted set of threads by the time (ms) at which they are in line again
--   waiting:<person>     sorted set of threads, by place, whose person has enough turns running
--   mailbox:<thread>     list of turn ids, the running or next one first
--   turn:<id>            hash: what is known of the turn
--   open, open:<person>  sets of turns that are admitted and have no outcome yet
--   running:<person>     set of turns that workers are busy with
--   history:<thread>     list of exchanges
--   kept:<person>        list of turns that have ended, oldest first, each behind the bytes of all up to it
--   posted:<message>     the thread in which a surface posted a message
--   pressed:<press>      a press of Regenerate that was heeded
--   mend:<platform>      sorted set of turns that have ended, by the time (ms) at which somebody looks
--                        for what an earlier try has left
--   dead                 stream of turns that were given up

local prefix = KEYS[1]
local GROUP = 'workers'
local LATE_ADMISSION_MS = 600000
local ENDED = {done = true, stopped = true, failed = true, dead = true, dropped = true}
-- Longer than any platform tells of a press again.
local PRESS_MS = 3600000
-- As many looks, and nothing helps.
local LOOKS = 20
-- No platform asks for a longer pause.
local DAY_MS = 86400000
-- About as long as an answer takes.
local YIELD_US = 30000000
-- Bytes that the record of a turn takes beside its texts, and the way from its message to the thread.
local RECORD = 2000
-- How many times its places a thread takes when many people ask there.
local CROWD = 4

local function key(...)
  return prefix .. table.concat({...}, ':')
end

local function keep(...)
  for _, name in ipairs({...}) do redis.call('PEXPIRE', name, ARGV[2]) end
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

-- Whoever has waited longest comes first. Each turn that its person has open besides counts as half
-- a minute, so that nobody waits for all that somebody else asks at once.
local function place_for(person)
  return now_us() + redis.call('SCARD', key('open', person)) * YIELD_US
end

-- The place stays a turn's own: what was given back, or stood behind others in its thread, is
-- before those who came since.
local function place_of(thread)
  local first = redis.call('LINDEX', key('mailbox', thread), 0)
  local place = first and tonumber(redis.call('HGET', key('turn', first), 'place'))
  return place == place and place or now_us()
end

local function make_ready(thread)
  local platform = platform_of(thread)
  local line, stream = key('line', platform), key('ready', platform)
  redis.call('ZADD', line, place_of(thread), thread)
  redis.call('XADD', stream, '*', 'platform', platform)
  keep(line, stream)
end

-- The JSON object or array; {} if it is none.
local function decoded(json)
  local readable, value = pcall(cjson.decode, json)
  return readable and type(value) == 'table' and value or {}
end

-- The message ids in a JSON array.
local function messages(json)
  local found = {}
  for _, message in ipairs(decoded(json)) do
    if type(message) == 'string' then table.insert(found, message) end
  end
  return found
end

-- HINCRBY fails if the field is no number.
local function count(name, field, by)
  local value = tonumber(redis.call('HGET', name, field)) or 0
  if not (value >= 0 and value < 2 ^ 52) then value = 0 end
  value = math.floor(value) + by
  redis.call('HSET', name, field, value)
  return value
end

-- The person may now run one turn more.
local function wake_waiting(person)
  local thread = redis.call('ZPOPMIN', key('waiting', person))[1]
  if thread then make_ready(thread) end
end

-- Whether a token is somebody's, or this worker's if one is named.
local function is_pending(platform, entry, ...)
  return #redis.pcall('XPENDING', key('ready', platform), GROUP, entry, entry, 1, ...) > 0
end

local function spend(platform, entry)
  redis.pcall('XACK', key('ready', platform), GROUP, entry)
  redis.pcall('XDEL', key('ready', platform), entry)
  redis.call('HDEL', key('held', platform), entry)
end

local function release(id, turn)
  spend(platform_of(turn.thread), turn.entry)
  redis.call('SREM', key('running', turn.person), id)
end

local function close(id, person)
  redis.call('ZREM', key('open'), id)
  redis.call('SREM', key('open', person), id)
end

local function record(id)
  local values = redis.call('HMGET', key('turn', id), 'state', 'fence', 'thread', 'person', 'entry')
  return {
    state = values[1], fence = values[2], thread = values[3],
    person = values[4] or '', entry = values[5] or '',
  }
end

local function holds(turn, fence)
  return turn.state == 'running' and turn.fence == fence and turn.thread
end

-- The id of the turn that an exchange (JSON) is of; '' if it cannot be read. Lines are long: most tell
-- it at their beginning.
local function turn_of(line)
  local id = string.match(line, '^{"turn_id": "([^"\\]*)"') or decoded(line).turn_id
  return type(id) == 'string' and id or ''
end

-- The id of the thread's last remembered turn; '' when there is none.
local function last_remembered(thread)
  return turn_of(redis.call('LINDEX', key('history', thread), -1) or '')
end

-- The oldest exchanges go; the newest stays, however long it is.
local function shorten(history, limit, most_bytes)
  local lines, kept, size = redis.call('LRANGE', history, -limit, -1), 0, 0
  for at = #lines, 1, -1 do
    size = size + #lines[at]
    if kept > 0 and size > tonumber(most_bytes) then break end
    kept = kept + 1
  end
  redis.call('LTRIM', history, -kept, -1)
end

-- A turn that is answered anew is still the last one: nothing else was at work in its thread.
local function remember(thread, id, exchange, limit, most_bytes)
  local history = key('history', thread)
  if last_remembered(thread) == id then
    redis.call('LSET', history, -1, exchange)
  else
    redis.call('RPUSH', history, exchange)
  end
  shorten(history, limit, most_bytes)
  keep(history)
end

-- `ids` is a set.
local function forget_exchanges(thread, ids)
  local history = key('history', thread)
  for _, line in ipairs(redis.call('LRANGE', history, 0, -1)) do
    if ids[turn_of(line)] then redis.call('LREM', history, 1, line) end
  end
end

local function waits_or_runs(id, turn)
  return (turn.state == 'queued' or turn.state == 'running') and turn.thread
    and redis.call('LPOS', key('mailbox', turn.thread), id)
end

-- How many turns of a person run. Nobody tells the end of one whose record is gone, or was changed by
-- another hand, or that its thread does not know any more.
local function count_running(person)
  local running = key('running', person)
  for _, id in ipairs(redis.call('SMEMBERS', running)) do
    local turn = record(id)
    local runs = turn.state == 'running' and turn.person == person and waits_or_runs(id, turn)
    if not runs then redis.call('SREM', running, id) end
  end
  return redis.call('SCARD', running)
end

-- Keys may be lost, moved away or changed by another hand. An id of no turn that waits or runs is
-- dropped. A thread that stands nowhere, or waits for a person of whom nothing runs, would wait for
-- ever: it stands in line again.
local function look_after(id)
  local turn = record(id)
  if not waits_or_runs(id, turn) then return close(id, turn.person) end
  local thread, platform = turn.thread, platform_of(turn.thread)
  local first = record(redis.call('LINDEX', key('mailbox', thread), 0))
  if redis.call('ZSCORE', key('waiting', first.person), thread) then
    if count_running(first.person) == 0 then wake_waiting(first.person) end
    return
  end
  local stands = redis.call('ZSCORE', key('line', platform), thread)
    or redis.call('ZSCORE', key('later', platform), thread)
    or redis.call('HGET', key('held', platform), first.entry) == thread
  if not stands then make_ready(thread) end
end

local function look_after_some()
  for _, id in ipairs(redis.call('ZRANDMEMBER', key('open'), 20)) do look_after(id) end
end

local function drop_ended(person)
  for _, id in ipairs(redis.call('SMEMBERS', key('open', person))) do
    if not waits_or_runs(id, record(id)) then redis.call('SREM', key('open', person), id) end
  end
end

-- A record is JSON that ends with the question. So it can be taken out and put back without reading
-- the rest: cjson rounds large numbers. `head` is what stands before it.
local function with_question(head, text)
  return head .. ', "text": ' .. text .. '}'
end

local NO_QUESTION = with_question('', '""')

-- Replace the question in a turn's record. One that an older version wrote stays as it is.
local function put_question(id, text)
  local body, size = unpack(redis.call('HMGET', key('turn', id), 'body', 'head_size'))
  if not (body and tonumber(size)) then return end
  redis.call('HSET', key('turn', id), 'body', with_question(string.sub(body, 1, tonumber(size)), text))
end

local function drop_question(id)
  put_question(id, '""')
end

local function lacks_question(id)
  local body = redis.call('HGET', key('turn', id), 'body') or ''
  return string.sub(body, -#NO_QUESTION) == NO_QUESTION
end

-- The thread's last exchange is this turn's.
local function recall_question(id, thread)
  local question = decoded(redis.call('LINDEX', key('history', thread), -1)).question
  if type(question) == 'string' then put_question(id, cjson.encode(question)) end
end

-- For a while the turn is still known, so that it is not admitted again. One that is to be mended
-- needs its record, and one that is answered anew is counted again at its end.
local function discard(id)
  local name, turn = key('turn', id), record(id)
  if not turn.thread then return end
  forget_exchanges(turn.thread, {[id] = true})
  local mended = redis.call('ZSCORE', key('mend', platform_of(turn.thread)), id)
  if mended or turn.state == 'queued' or turn.state == 'running' then return end
  for _, message in ipairs(messages(redis.call('HGET', name, 'pages'))) do
    redis.call('DEL', key('posted', platform_of(turn.thread), message))
  end
  redis.call('DEL', name)
  redis.call('HSET', name, 'state', 'dropped')
  redis.call('PEXPIRE', name, LATE_ADMISSION_MS)
end

-- Count what is kept of a turn that has ended, and discard the oldest turns of its person beyond
-- `most_bytes`.
local function count_kept(id, person, size, most_bytes)
  local list = key('kept', person)
  local last = redis.call('LINDEX', list, -1) or '0'
  local total = math.min(tonumber(string.match(last, '^%d+')) or 0, 2 ^ 52) + size
  local mark = string.format('%.0f', total)
  redis.call('RPUSH', list, mark .. ' ' .. id)
  redis.call('HSET', key('turn', id), 'kept', mark)
  keep(list)
  while true do
    local upto, oldest = string.match(redis.call('LINDEX', list, 0), '^(%d+) (.*)$')
    if upto and total - upto < tonumber(most_bytes) then return end
    redis.call('LPOP', list)
    -- One that was answered anew since is counted there.
    if upto and redis.call('HGET', key('turn', oldest), 'kept') == upto then discard(oldest) end
  end
end

-- One person fills the thread's places at most: a question beyond them is taken from somebody who has
-- none there.
local function is_thread_full(thread, person, limit)
  local ids = redis.call('LRANGE', key('mailbox', thread), 0, -1)
  if #ids < tonumber(limit) then return false end
  if #ids >= CROWD * limit then return true end
  for _, id in ipairs(ids) do
    if redis.call('HGET', key('turn', id), 'person') == person then return true end
  end
  return false
end

-- '' when there is room for one more.
local function refusal(person, person_limit, total_limit)
  if redis.call('SCARD', key('open', person)) >= tonumber(person_limit) then drop_ended(person) end
  if redis.call('ZCARD', key('open')) >= tonumber(total_limit) then look_after_some() end
  if redis.call('SCARD', key('open', person)) >= tonumber(person_limit) then return 'person' end
  if redis.call('ZCARD', key('open')) >= tonumber(total_limit) then return 'full' end
  return ''
end

-- The thread may wait for its first turn's person, for whom this other one need not wait.
local function let_go_on(thread, person)
  local first = record(redis.call('LINDEX', key('mailbox', thread), 0))
  if first.person == person then return end
  if redis.call('ZREM', key('waiting', first.person), thread) == 1 then make_ready(thread) end
end

local function enqueue(id, thread, person)
  local mailbox = key('mailbox', thread)
  redis.call('HSET', key('turn', id), 'place', place_for(person))
  redis.call('ZADD', key('open'), now_ms(), id)
  redis.call('SADD', key('open', person), id)
  if redis.call('RPUSH', mailbox, id) == 1 then
    make_ready(thread)
  else
    let_go_on(thread, person)
  end
  keep(key('turn', id), mailbox, key('open'), key('open', person))
end

local function mend_later(id, thread, delay)
  local mend = key('mend', platform_of(thread))
  redis.call('HDEL', key('turn', id), 'looks')
  redis.call('ZADD', mend, now_ms() + delay, id)
  keep(mend)
end

-- What stands on these messages (JSON) may not be what the turn has ended with.
local function note_late(id, pages)
  local name = key('turn', id)
  local late = messages(redis.call('HGET', name, 'late'))
  for _, message in ipairs(messages(pages)) do table.insert(late, message) end
  if #late > 0 then redis.call('HSET', name, 'late', cjson.encode(late)) end
end

local verbs = {}

function verbs.admit(id, thread, person, head, text, thread_limit, person_limit, total_limit)
  local known = redis.call('HMGET', key('turn', id), 'state', 'body')
  if known[1] then
    -- The same turn may be the same call, sent again because its answer was lost.
    local same = known[2] and string.sub(known[2], 1, #head) == head
    return known[1] ~= 'dropped' and same and 'admitted' or 'duplicate'
  end
  if is_thread_full(thread, person, thread_limit) then return 'thread' end
  local full = refusal(person, person_limit, total_limit)
  if full ~= '' then return full end

  redis.call('HSET', key('turn', id), 'state', 'queued', 'fence', 0, 'tries', 0,
    'thread', thread, 'person', person, 'body', with_question(head, text), 'head_size', #head)
  enqueue(id, thread, person)
  return 'admitted'
end

-- Whether a turn of this person would be taken now, in a thread of its own.
function verbs.room(person, person_limit, total_limit)
  return refusal(person, person_limit, total_limit)
end

-- What the turn has shown stays on the screen, and its exchange in the history, until there is a
-- new one. One that left no exchange is the last as long as none has followed it (`after`). `place`
-- is what the press adds to the turn's place, '' when that is nothing.
function verbs.regenerate(id, asker, press, place, person_limit, total_limit)
  local name, turn, pressed = key('turn', id), record(id), key('pressed', press)
  if redis.call('EXISTS', pressed) == 1 then return 'again' end
  local kept = redis.call('HMGET', name, 'forget', 'body', 'after', 'shown')
  if kept[1] or not kept[2] or not turn.thread or turn.state == 'dropped' then return 'gone' end
  local person = decoded(kept[2]).person
  if type(person) ~= 'table' then return 'gone' end
  if person.id ~= asker then return 'asker' end
  if redis.call('LINDEX', key('mailbox', turn.thread), 0) == id then return 'thread' end
  local last = last_remembered(turn.thread)
  if last ~= id and last ~= kept[3] then return last == '' and 'gone' or 'older' end
  if redis.call('LLEN', key('mailbox', turn.thread)) > 0 then return 'thread' end
  local full = refusal(turn.person, person_limit, total_limit)
  if full ~= '' then return full end

  redis.call('SET', pressed, id, 'PX', PRESS_MS)
  if last == id then
    redis.call('HSETNX', name, 'former', kept[4] or '')
    recall_question(id, turn.thread)
  end
  redis.call('HSET', name, 'state', 'queued', 'tries', 0, 'shown', '')
  if place ~= '' then redis.call('HSET', name, 'pressed_at', place) end
  redis.call('HDEL', name, 'stop', 'furthest', 'rest')
  enqueue(id, turn.thread, turn.person)
  return 'again'
end

-- The thread's first turn and its record; nothing where none is left.
local function first_turn(thread)
  while true do
    local id = redis.call('LINDEX', key('mailbox', thread), 0)
    if not id then return end
    local turn = record(id)
    if redis.call('EXISTS', key('turn', id)) == 1 and not ENDED[turn.state] then
      if turn.thread ~= thread then redis.call('HSET', key('turn', id), 'thread', thread) end
      turn.thread = thread
      return id, turn
    end
    -- Its record has expired, or was changed by another hand.
    redis.call('LPOP', key('mailbox', thread))
    close(id, turn.person)
    redis.call('SREM', key('running', turn.person), id)
  end
end

local function keeps_others_waiting(thread, person)
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    local other = redis.call('HGET', key('turn', id), 'person')
    if other and other ~= person then return true end
  end
  return false
end

-- Whoever waits in a thread waits for those before, and not for what they have asked elsewhere.
local function may_run(id, turn, cap)
  local person, running = turn.person, key('running', turn.person)
  if redis.call('SISMEMBER', running, id) == 1 then return true end
  if redis.call('SCARD', running) < tonumber(cap) then return true end
  return count_running(person) < tonumber(cap) or keeps_others_waiting(turn.thread, person)
end

-- Answers {id, fence, tries, body, pressed_at, stop, former, pages, shown, cuts, rest, thread}, or false
-- when there is nothing for us. A token that was claimed from another worker brings the thread that was taken
-- with it.
function verbs.take(platform, entry, worker, person_cap)
  local held = key('held', platform)
  if not is_pending(platform, entry, worker) then return false end

  local thread, id, turn = redis.call('HGET', held, entry), nil, nil
  while not id do
    thread = thread or redis.call('ZPOPMIN', key('line', platform))[1]
    if not thread then
      spend(platform, entry)
      return false
    end
    id, turn = first_turn(thread)
    if id and not may_run(id, turn, person_cap) then
      redis.call('ZADD', key('waiting', turn.person), place_of(thread), thread)
      keep(key('waiting', turn.person))
      id = nil
    end
    if not id then thread = nil end
  end
  redis.call('HSET', held, entry, thread)
  redis.call('SADD', key('running', turn.person), id)
  keep(held, key('running', turn.person))
  -- Who has it is for whoever looks at Redis.
  redis.call('HSET', key('turn', id), 'state', 'running', 'entry', entry, 'worker', worker)
  local fence, tries = count(key('turn', id), 'fence', 1), count(key('turn', id), 'tries', 1)
  -- An older version queues a turn anew without its question.
  if lacks_question(id) and last_remembered(thread) == id then recall_question(id, thread) end
  local known = redis.call('HMGET', key('turn', id),
    'body', 'pressed_at', 'stop', 'former', 'pages', 'shown', 'cuts', 'rest')
  return {id, fence, tries, known[1], known[2] or '{}', known[3] or '', known[4] or '',
    known[5] or '[]', known[6] or '', known[7] or '[]', known[8] or '{}', thread}
end

-- A token that another worker has claimed, but not taken yet, is lost too: claiming it back would
-- leave both of them at work.
function verbs.renew(id, fence, worker)
  local turn = record(id)
  if not holds(turn, fence) then return 'lost' end
  local platform = platform_of(turn.thread)
  if not is_pending(platform, turn.entry, worker) then return 'lost' end
  redis.call('XCLAIM', key('ready', platform), GROUP, worker, 0, turn.entry, 'JUSTID')
  return redis.call('HGET', key('turn', id), 'stop') or ''
end

local function note_posted(thread, pages)
  for _, message in ipairs(messages(pages)) do
    redis.call('SET', key('posted', platform_of(thread), message), thread, 'PX', ARGV[2])
  end
end

-- A try that shows more than all before it (`furthest`, in bytes) is the first again: what kills its
-- worker each time does so at the same point. Text of which no page was posted was shown to nobody.
-- `rest` is what else is known of the text: the outcome of one that is whole, for whoever takes the
-- turn after us, has only to show it.
function verbs.save(id, fence, pages, shown, cuts, rest)
  local turn = record(id)
  if not holds(turn, fence) then return 'lost' end
  local furthest = tonumber(redis.call('HGET', key('turn', id), 'furthest')) or 0
  if pages ~= '[]' and #shown > furthest then
    redis.call('HSET', key('turn', id), 'tries', 1, 'furthest', #shown)
  end
  redis.call('HSET', key('turn', id), 'pages', pages, 'shown', shown, 'cuts', cuts, 'rest', rest)
  note_posted(turn.thread, pages)
  return redis.call('HGET', key('turn', id), 'stop') or ''
end

-- Repeating it, because its answer was lost, changes nothing. `landed` is the time (ms) after which a
-- write of an earlier try has arrived, or never will.
function verbs.finish(id, fence, outcome, pages, shown, cuts, exchange,
    landed, history_limit, history_bytes, person_bytes)
  local turn = record(id)
  if turn.fence == fence and turn.state == outcome then return 'ok' end
  if not holds(turn, fence) then return 'lost' end

  local name, last = key('turn', id), last_remembered(turn.thread)
  local forgotten = redis.call('HGET', name, 'forget')
  if exchange == '' then
    redis.call('HSET', name, 'after', last)
  elseif not forgotten then
    remember(turn.thread, id, exchange, history_limit, history_bytes)
    redis.call('HDEL', name, 'former', 'after')
  end
  if outcome == 'dead' then
    redis.call('XADD', key('dead'), 'MAXLEN', '~', 1000, '*', 'turn', id)
    keep(key('dead'))
    -- Of a turn that could not be read nobody knows the end: it may have no word of its own yet.
    if shown ~= '' then note_late(id, pages) end
  end
  redis.call('HSET', name, 'state', outcome, 'pages', pages, 'shown', shown, 'cuts', cuts)
  redis.call('HDEL', name, 'entry', 'worker', 'place', 'tries', 'furthest', 'rest', 'stop')
  -- The history has the question. Without an exchange the record keeps it, to be answered anew.
  if exchange ~= '' or last == id or forgotten then drop_question(id) end
  keep(name)
  -- What was posted while the store was away was not saved before.
  note_posted(turn.thread, pages)
  if tonumber(fence) > 1 or outcome == 'dead' then mend_later(id, turn.thread, landed) end
  redis.call('LREM', key('mailbox', turn.thread), 1, id)
  close(id, turn.person)
  release(id, turn)
  if redis.call('LLEN', key('mailbox', turn.thread)) > 0 then make_ready(turn.thread) end
  wake_waiting(turn.person)
  -- A former answer that stays is counted already.
  if exchange ~= '' or last ~= id then
    local text = exchange ~= '' and #exchange or redis.call('HSTRLEN', name, 'body')
    count_kept(id, turn.person, RECORD + #shown + text, person_bytes)
  end
  return 'ok'
end

-- Ends as dead the turn that was taken with a token and cannot be read. Its id may be one that no client
-- can write, so it is not asked for.
function verbs.give_up(platform, entry, fence, ...)
  local thread = redis.call('HGET', key('held', platform), entry)
  local id = thread and redis.call('LINDEX', key('mailbox', thread), 0)
  if not id then return 'lost' end
  local known = redis.call('HMGET', key('turn', id), 'pages', 'shown', 'cuts')
  return verbs.finish(id, fence, 'dead', known[1] or '[]', known[2] or '', known[3] or '[]', '', ...)
end

-- `counts` is '1' when this try was spent, '' when the turn is only handed over.
function verbs.back(id, fence, delay, counts)
  local turn = record(id)
  if turn.fence == fence and turn.state == 'queued' then return 'ok' end
  if not holds(turn, fence) then return 'lost' end
  redis.call('HSET', key('turn', id), 'state', 'queued')
  if counts == '' then count(key('turn', id), 'tries', -1) end
  release(id, turn)
  if tonumber(delay) > 0 then
    local later = key('later', platform_of(turn.thread))
    redis.call('ZADD', later, now_ms() + math.min(delay, DAY_MS), turn.thread)
    keep(later)
  else
    make_ready(turn.thread)
  end
  wake_waiting(turn.person)
  return 'ok'
end

-- A try that has lost the turn tells what it may have written since; `pages` are all of its messages.
function verbs.late(id, pages)
  local thread = record(id).thread
  if not thread then return 0 end
  note_late(id, pages)
  mend_later(id, thread, 0)
  return 1
end

-- Answers {id, claim, body, pressed_at, late, thread} of a turn that is due, or false when none is. Somebody
-- else has it `patience` ms later, unless it was mended. The end of one that is under way asks anew.
function verbs.mend(platform, patience)
  local mend = key('mend', platform)
  while true do
    local id = redis.call('ZRANGEBYSCORE', mend, '-inf', now_ms(), 'LIMIT', 0, 1)[1]
    if not id then return false end
    local name = key('turn', id)
    local known = redis.call('HMGET', name, 'state', 'body', 'pressed_at', 'late', 'thread')
    local ended = known[1] and known[1] ~= 'queued' and known[1] ~= 'running'
    if ended and count(name, 'looks', 1) <= LOOKS then
      local claim = now_ms() + patience
      redis.call('ZADD', mend, claim, id)
      return {id, claim, known[2], known[3] or '{}', known[4] or '[]', known[5] or ''}
    end
    redis.call('ZREM', mend, id)
  end
end

-- Unless it was asked for anew meanwhile.
function verbs.mended(platform, id, claim)
  local mend = key('mend', platform)
  if redis.call('ZSCORE', mend, id) ~= claim then return 0 end
  redis.call('HDEL', key('turn', id), 'late', 'looks')
  return redis.call('ZREM', mend, id)
end

-- A worker's name that another hand has deleted takes its tokens along: they stand in the stream, and
-- nobody is given them again. The oldest of what was given are looked at; all others end.
local function drop_lost_tokens(platform)
  local stream = key('ready', platform)
  for _, group in ipairs(redis.pcall('XINFO', 'GROUPS', stream)) do
    local name, given = group[2], group[8]
    local oldest = name == GROUP and redis.call('XRANGE', stream, '-', given, 'COUNT', 20) or {}
    for _, token in ipairs(oldest) do
      if not is_pending(platform, token[1]) then redis.call('XDEL', stream, token[1]) end
    end
  end
end

-- A stream that is lost takes its tokens along. The threads in line get others, and those that were
-- taken stand in line again: their workers learn by it that they have lost them.
local function replace_lost_tokens(platform)
  local line, stream, held = key('line', platform), key('ready', platform), key('held', platform)
  local taken = redis.call('HGETALL', held)
  for i = 1, #taken, 2 do
    if not is_pending(platform, taken[i]) then
      spend(platform, taken[i])
      make_ready(taken[i + 1])
    end
  end
  drop_lost_tokens(platform)
  local waiting = redis.call('ZCARD', line)
  local tokens = redis.call('XLEN', stream) - redis.call('HLEN', held)
  for _ = 1, math.min(waiting - tokens, waiting) do
    redis.call('XADD', stream, '*', 'platform', platform)
    keep(stream)
  end
end

-- Makes sure that the platform's stream can be read. One that nobody wrote to would not expire.
function verbs.open(platform)
  local stream = key('ready', platform)
  local made = redis.pcall('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
  -- Whoever reads would ask without end in a store that is full.
  if made.err and not string.find(made.err, '^BUSYGROUP') then error(made) end
  keep(stream)
  return 1
end

local function end_pauses(platform, from, to)
  local later = key('later', platform)
  for _, thread in ipairs(redis.call('ZRANGEBYSCORE', later, from, to, 'LIMIT', 0, 100)) do
    redis.call('ZREM', later, thread)
    make_ready(thread)
  end
end

function verbs.due(platform)
  look_after_some()
  replace_lost_tokens(platform)
  local now = now_ms()
  end_pauses(platform, '-inf', now)
  -- Of another hand, or of a clock that was put right since.
  end_pauses(platform, now + DAY_MS + 1, '+inf')
  return 1
end

function verbs.stop(id)
  local state = record(id).state
  if state ~= 'queued' and state ~= 'running' then return 0 end
  redis.call('HSET', key('turn', id), 'stop', '1')
  redis.call('PUBLISH', key('stops'), id)
  return 1
end

-- The first turn of the mailbox, unless nobody has taken it yet: then people see nothing of it.
function verbs.stop_thread(thread)
  local id = redis.call('LINDEX', key('mailbox', thread), 0)
  if not id or record(id).fence == '0' then return 0 end
  return verbs.stop(id)
end

-- The thread's next turn does not wait for what the dropped one has waited for; the place that it
-- may have been woken for is another one's.
local function drop(id, turn)
  local mailbox, platform = key('mailbox', turn.thread), platform_of(turn.thread)
  local first = redis.call('LINDEX', mailbox, 0) == id
  redis.call('HSET', key('turn', id), 'state', 'dropped')
  drop_question(id)
  redis.call('LREM', mailbox, 1, id)
  close(id, turn.person)
  if not first then return end
  for _, name in ipairs({key('line', platform), key('later', platform), key('waiting', turn.person)}) do
    redis.call('ZREM', name, turn.thread)
  end
  if redis.call('LLEN', mailbox) > 0 then make_ready(turn.thread) end
  wake_waiting(turn.person)
end

-- Forgets turns, of which the last was asked at `asked` (ms; '' if that is not known), in the past or
-- within the next ten minutes: the admission of a question that was asked just now may be on its way.
-- One that was given back in mid-reply is taken once more, to end what stands on the screen.
function verbs.forget(asked, ...)
  local may_come = now_ms() - (tonumber(asked) or now_ms()) < LATE_ADMISSION_MS
  local remembered = {}
  for _, id in ipairs({...}) do
    local turn, name = record(id), key('turn', id)
    if turn.thread and turn.state == 'queued' and redis.call('HEXISTS', name, 'pages') == 0 then
      drop(id, turn)
    elseif turn.thread then
      redis.call('HSET', name, 'forget', '1')
      remembered[turn.thread] = remembered[turn.thread] or {}
      remembered[turn.thread][id] = true
      if verbs.stop(id) == 0 then drop_question(id) end
    elseif may_come then
      redis.call('HSET', name, 'state', 'dropped')
      redis.call('PEXPIRE', name, LATE_ADMISSION_MS)
    end
  end
  for thread, ids in pairs(remembered) do forget_exchanges(thread, ids) end
end

-- A name with pending tokens stays: they are reclaimed from it. Any other goes, for nobody else ends
-- that of a worker that was killed; whoever reads has its name again.
function verbs.leave(platform)
  local stream = key('ready', platform)
  -- There are none where nobody has read it yet, which is an error.
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
  for _, consumer in ipairs(consumers) do
    local name, pending = consumer[2], consumer[4]
    if pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, name)
    end
  end
  return 1
end

return verbs[ARGV[1]](unpack(ARGV, 3))
