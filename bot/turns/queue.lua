-- The durable queue: one verb per call, each atomic.
--
-- Older and newer versions may run beside this one. So unknown fields stay as they are, and an unreadable
-- value counts as missing. No value may raise an error: a script's earlier writes would stay.
--
-- queue.py cuts out the functions that a verb needs, by name. So each function begins
-- and ends at the start of a line. forget.lua follows this file.
--
-- KEYS[1] is the prefix of all keys, with the hash tag that keeps them in one slot.
-- ARGV[1] is the verb, ARGV[2] how long keys are kept (ms), the rest the verb's arguments in the order of
-- its function below.
--
-- A thread with work is in exactly one of: ready_threads, delayed, throttled, claimed.

local prefix = KEYS[1]
local GROUP = 'workers'
local LATE_ADMISSION_MS = 600000
local ENDED = {done = true, stopped = true, failed = true, dead = true, dropped = true}
-- Longer than any platform delivers a press again.
local PRESS_MS = 3600000
local MOST_REPAIR_ATTEMPTS = 20
-- No platform asks for a longer pause.
local DAY_MS = 86400000
-- About as long as an answer takes.
local YIELD_US = 30000000
-- Without a history, texts expire so much later (ms) than the time for a repair.
local LAST_WORDS_MS = 60000
-- Of people who rate one answer; further ratings are not stored.
local MOST_RATINGS = 200
-- Bytes of a turn's record beside its texts, and of the keys that lead from its messages to the thread.
local RECORD_BYTES = 2000
-- A thread in which many people ask has this many times its slots.
local CROWD = 4
-- It matters whether one person or several have spoken in a thread.
local MOST_SPEAKERS = 10
-- A person who edits a question repeatedly delays others in the thread for so many beginnings.
local MOST_BEGINNINGS = 5
-- The preferences that say how to answer.
local PREFERRED = {'model', 'persona', 'temperature', 'max_tokens'}
-- Bytes of the records of turns that are answered together: about as many as one question may have.
local JOINED_BYTES = 64000
-- After its day, what was used is only corrected.
local SPENT_MS = 2 * DAY_MS
-- The value of a record's `forget` if the answer is dropped, too: at once, or after a repair without buttons.
local WITH_ANSWER, AFTER_REPAIR = '2', '3'
-- Of messages that were deleted before they were known.
local MOST_MARKS = 10000

-- Stored names are those of the first version. Keys without a line here are stored under their own name:
--   mailbox:<thread>     list of turn ids, the running or next one first
--   turn:<id>            hash: the record of a turn
--   open, open:<person>  sets of turns that are admitted and have no outcome yet
--   running:<person>     set of turns that workers have taken
--   history:<thread>     list of exchanges
--   speakers:<thread>    set of the people who have spoken in a thread of the bot, up to some
--   turns:<thread>       sorted set of ended turns, by the time (ms) of their end
--   marks                sorted set of deleted messages whose turns were not known, by that time (ms)
--   kept:<person>        list of ended turns, oldest first, each behind the bytes of all up to it
--   posted:<message>     the thread in which a surface posted a message
--   deleted:<message>    a message that was deleted while no turn was known to have posted it
--   pressed:<press>      a press of Regenerate, or a command to reset, that was accepted
--   answered:<id>        set if a turn has ended and its record expires before it could come again
--   newest:<thread>      the last turn of a thread whose reply has ended and shows something
--   heard:<message>      set of the threads in whose contexts a message is, by the id of its turn
--   told:<thread>        the turn that announced that the thread's beginning no longer fits
--   seen:<thread>        set if earlier messages are not read as context despite an empty history: part of the
--                        thread was forgotten, or its first question has no answer and nothing was before it
--   spent:<day>:<who>    hash: how many questions and tokens of a model a person, or all people of a server, have
--                        used on a day (UTC, counted from 1970); of open turns it has what they have reserved
--   warned:<person>      set if the person has read in the last day that they may not use the bot
--   preferences:<place>  hash of what was chosen for a thread, a channel or a server, each value as JSON; the
--                        place is written as a thread, without its last parts
--   of:<platform>:<id>   set of the threads in which a person has spoken; see forget.lua
--   dead                 stream of turns that were given up
local STORED = {
  -- <platform>: sorted set of threads that may be taken, by the position of their first turn
  ready_threads = 'line',
  -- <platform>: stream of tokens, at least one for each ready thread; a token gives the right to take the
  -- thread that is first at that moment
  tokens = 'ready',
  -- <platform>: hash of the threads that were taken, by token
  claimed = 'held',
  -- <platform>: sorted set of threads by the time (ms) at which they are ready again
  delayed = 'later',
  -- <person>: sorted set of threads, by position, whose person has enough turns running
  throttled = 'waiting',
  -- <platform>: sorted set of ended turns by the time (ms) at which their reply is repaired
  repairs = 'mend',
}

-- The record of a turn, `turn:<id>`; records.py reads its JSON. A flag is '1' or missing. The question:
--   state         queued, running, dropped, or the outcome
--   thread        the thread as ThreadKey writes it
--   person        the key of the asker, written as a thread, too
--   body          JSON: the turn as it was admitted; its text, the question, is last and may be dropped
--   head_size     bytes of the body before the question
--   context       JSON: the message to which the question replies, and earlier messages of others
--   unheard       JSON: ids of messages that were removed from the context; a worker may still have them
--   unsaid        flag: also messages of a person who is being forgotten
--   preferences   JSON: how to answer, as it was chosen when the turn was queued or edited
--   edited        when the question was last edited (ms)
--   forget        '1' if the question was forgotten, WITH_ANSWER or AFTER_REPAIR if the answer goes, too
-- Its way through the queue:
--   fence         how often the turn was taken: the number of its newest lease
--   entry         the token with which it was taken
--   worker        the worker that has taken it, for operators only
--   stop          flag: a person asks for the end of the answer
--   begun         how often workers restarted for an edit since the turn was queued; see MOST_BEGINNINGS
--   joins         flag: it may be answered together with others
--   joined        JSON: ids of the turns that are answered together with this one
--   lead          id of the turn together with which this one is answered
-- Its answer:
--   above         the last message of the thread's newest reply when the turn was first taken
--   shown         all text that its messages show, or will show after the write under way
--   end           how the answer of an ended turn ended: an End of domain.py
--   after         the thread's last remembered turn when this one ended without an exchange
--   continued     JSON: ids of the turns that continue the answer
--   kept          the bytes at this turn in the list `kept:<person>`, of all turns up to it
-- Fields that are stored under another name than they have here:
local ATTEMPTS = 'tries' -- the attempt under way and those before it that got no further than the best one
local POSITION = 'place' -- the time (us) by which ready threads are sorted; where to answer is in the body
local PLACE_CHANGES = 'pressed_at' -- JSON: what is added to the place in the body, by a press or the queue
local MESSAGE_IDS = 'pages' -- JSON: ids of the messages that show the answer, one for each page
local MORE = 'rest' -- JSON: further facts about the text in `shown`, and the tokens used so far
local MAX_PROGRESS = 'furthest' -- bytes of the longest text that an attempt has shown
local PREVIOUS_ANSWER = 'former' -- the answer that stays until there is a new one
local LATE_WRITES = 'late' -- JSON: ids of messages that may show something else than the turn ended with
local REPAIR_ATTEMPTS = 'looks' -- how often its repair was claimed
local ANEW = 'anew' -- flag: the question was edited, and no worker has taken the turn since
local RESERVED = 'reserved' -- '<day> <questions> <tokens>' of its person's quota, until the turn ends

local function key(kind, ...)
  return prefix .. table.concat({STORED[kind] or kind, ...}, ':')
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

-- Turns are taken in the order of their admission. Each further open turn of the same person counts as half a
-- minute, so that others do not wait for all questions of one person.
local function next_position(person)
  return now_us() + redis.call('SCARD', key('open', person)) * YIELD_US
end

-- A turn keeps its position when it is released, or while others of its thread run.
local function position_of(thread)
  local first = redis.call('LINDEX', key('mailbox', thread), 0)
  local position = first and tonumber(redis.call('HGET', key('turn', first), POSITION))
  return position == position and position or now_us()
end

local function make_ready(thread)
  local platform = platform_of(thread)
  local ready, tokens = key('ready_threads', platform), key('tokens', platform)
  redis.call('ZADD', ready, position_of(thread), thread)
  redis.call('XADD', tokens, '*', 'platform', platform)
  keep(ready, tokens)
end

-- The JSON object or array; {} if it is none.
local function decoded(json)
  local readable, value = pcall(cjson.decode, json)
  return readable and type(value) == 'table' and value or {}
end

-- The ids, of messages or turns, in a JSON array.
local function ids_in(json)
  local found = {}
  for _, one in ipairs(decoded(json)) do
    if type(one) == 'string' then table.insert(found, one) end
  end
  return found
end

-- The last message in a JSON array; '' if there is none.
local function last_of(message_ids)
  local found = ids_in(message_ids)
  return found[#found] or ''
end

-- The messages of a turn that its workers have deleted, or are about to.
local function removed_messages(id)
  local removed = decoded(redis.call('HGET', key('turn', id), MORE) or '').removed
  return type(removed) == 'table' and removed or {}
end

-- The turns that are answered together with this one, in their order.
local function joined_to(id)
  return ids_in(redis.call('HGET', key('turn', id), 'joined') or '')
end

local function continued_by(id)
  return ids_in(redis.call('HGET', key('turn', id), 'continued') or '')
end

-- HINCRBY raises an error if the field is no number.
local function count(name, field, by)
  local value = tonumber(redis.call('HGET', name, field)) or 0
  if not (value >= 0 and value < 2 ^ 52) then value = 0 end
  value = math.floor(value) + by
  redis.call('HSET', name, field, value)
  return value
end

-- A finite number for a sum.
local function natural(value)
  value = tonumber(value) or 0
  return value >= 0 and value < 2 ^ 52 and math.floor(value) or 0
end

-- All direct messages of a platform without servers there count as one server.
local function server_of(thread)
  return string.match(thread, '^[^:]*:?[^:]*')
end

-- The day, and the milliseconds until the next one.
local function today()
  local now = now_ms()
  return math.floor(now / DAY_MS), DAY_MS - now % DAY_MS
end

-- Includes the use of a person who was forgotten since; see `hide_spent`.
local function spent_on(day, who, field)
  local date, salt = string.format('%.0f', day), redis.call('GET', key('spent', 'salt'))
  local hidden = salt and redis.call('HGET', key('spent', date, redis.sha1hex(salt .. who)), field)
  return natural(redis.call('HGET', key('spent', date, who), field)) + natural(hidden or 0)
end

local function add_spent(day, who, questions, tokens)
  local name = key('spent', string.format('%.0f', day), who)
  -- A correction after its day must not restore the count without an expiry.
  if questions + tokens < 0 and redis.call('EXISTS', name) == 0 then return end
  for field, more in pairs({questions = questions, tokens = tokens}) do
    local sum = math.max(natural(redis.call('HGET', name, field)) + more, 0)
    redis.call('HSET', name, field, string.format('%.0f', sum))
  end
  redis.call('PEXPIRE', name, SPENT_MS)
end

-- Refuses more than a person's quota: 'used KIND MILLISECONDS', until it renews; '' if there is room. `quota`
-- has a number for each limit. A single question may need more tokens than a quota has: the first one
-- of a day is accepted if anything is left.
local function quota_refusal(person, thread, quota, questions, tokens)
  local day, left = today()
  local function refuses(who, field, more, limit)
    limit = tonumber(limit)
    local used = limit and spent_on(day, who, field)
    return limit and more > 0 and used + more > limit and (used > 0 or limit <= 0 or field == 'questions')
  end
  local server = server_of(thread)
  local what = refuses(person, 'questions', questions, quota.questions) and 'questions'
    or refuses(person, 'tokens', tokens, quota.tokens) and 'tokens'
    or refuses(server, 'tokens', tokens, quota.server_tokens) and 'server'
  return what and string.format('used %s %.0f', what, left) or ''
end

local function reserved_by(id)
  local known = redis.call('HGET', key('turn', id), RESERVED) or ''
  local day, questions, tokens = string.match(known, '^(%d+) (%d+) (%d+)$')
  return tonumber(day), natural(questions), natural(tokens)
end

-- Adds to what a turn has reserved. All of it counts on the day of the first.
local function reserve(id, person, thread, questions, tokens)
  local day, before, tokens_before = reserved_by(id)
  day = day or today()
  local all = string.format('%.0f %.0f %.0f', day, before + questions, tokens_before + tokens)
  redis.call('HSET', key('turn', id), RESERVED, all)
  add_spent(day, person, questions, tokens)
  add_spent(day, server_of(thread), questions, tokens)
end

-- Replaces the reservation of a turn by its use. A turn that does not count costs its person nothing.
-- Without a number of tokens, the reservation stays. A second call changes nothing.
local function settle(id, turn, counts, tokens)
  local day, questions, reserved = reserved_by(id)
  redis.call('HDEL', key('turn', id), RESERVED)
  if not day or not turn.thread then return end
  local used = tonumber(tokens) and natural(tokens) or counts and reserved or 0
  add_spent(day, turn.person, counts and 0 or -questions, (counts and used or 0) - reserved)
  add_spent(day, server_of(turn.thread), counts and 0 or -questions, used - reserved)
end

-- The person may run one more turn.
local function wake_throttled(person)
  local thread = redis.call('ZPOPMIN', key('throttled', person))[1]
  if thread then make_ready(thread) end
end

-- Whether a token is pending, for the given worker if there is one.
local function is_pending(platform, entry, ...)
  return #redis.pcall('XPENDING', key('tokens', platform), GROUP, entry, entry, 1, ...) > 0
end

local function drop_ticket(platform, entry)
  redis.pcall('XACK', key('tokens', platform), GROUP, entry)
  redis.pcall('XDEL', key('tokens', platform), entry)
  redis.call('HDEL', key('claimed', platform), entry)
end

local function release(id, turn)
  drop_ticket(platform_of(turn.thread), turn.entry)
  redis.call('SREM', key('running', turn.person), id)
end

local function close(id, person)
  redis.call('ZREM', key('open'), id)
  redis.call('SREM', key('open', person), id)
end

-- The milliseconds since a turn was admitted, or asked for again.
local function open_for(id)
  return now_ms() - (tonumber(redis.call('ZSCORE', key('open'), id)) or now_ms())
end

local function record(id)
  local values = redis.call('HMGET', key('turn', id), 'state', 'fence', 'thread', 'person', 'entry')
  return {
    state = values[1], fence = values[2], thread = values[3],
    person = values[4] or '', entry = values[5] or '',
  }
end

local function is_open(turn)
  return turn.state == 'queued' or turn.state == 'running'
end

local function holds(turn, fence)
  return turn.state == 'running' and turn.fence == fence and turn.thread
end

-- No worker can take a turn without a record. So its current worker continues, and only the end is not
-- remembered: otherwise half an answer would stay.
local function is_record_lost(id)
  return redis.call('EXISTS', key('turn', id)) == 0
end

-- The turn with which this one is answered; nil if it is answered alone. An older version may have ended
-- only that one.
local function lead_of(id)
  local known = redis.call('HMGET', key('turn', id), 'lead', 'state')
  local lead = known[1]
  if not lead or known[2] == 'queued' and not is_open(record(lead)) then return nil end
  for _, one in ipairs(joined_to(lead)) do
    if one == id then return lead end
  end
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

-- Makes the worker of a turn, or the next one, answer its current question.
local function ask_for_anew(id)
  redis.call('HSET', key('turn', id), ANEW, '1')
  redis.call('PUBLISH', key('stops'), ANEW .. ' ' .. id)
end

local function leave_out(id, lead)
  local others = {}
  for _, one in ipairs(joined_to(lead)) do
    if one ~= id then table.insert(others, one) end
  end
  redis.call('HSET', key('turn', lead), 'joined', #others > 0 and cjson.encode(others) or '[]')
  if is_open(record(lead)) then ask_for_anew(lead) end
end

-- The id of an exchange's turn; '' if it cannot be read. Lines are long, and most begin with the id.
local function turn_of(line)
  local id = string.match(line, '^{"turn_id": "([^"\\]*)"') or decoded(line).turn_id
  return type(id) == 'string' and id or ''
end

-- The id of the thread's last remembered turn; '' if there is none.
local function last_remembered(thread)
  return turn_of(redis.call('LINDEX', key('history', thread), -1) or '')
end

-- Drops the oldest exchanges. The newest always stays.
local function shorten(history, limit, most_bytes)
  local lines, kept, size = redis.call('LRANGE', history, -limit, -1), 0, 0
  for at = #lines, 1, -1 do
    size = size + #lines[at]
    if kept > 0 and size > tonumber(most_bytes) then break end
    kept = kept + 1
  end
  redis.call('LTRIM', history, -kept, -1)
end

-- A regenerated turn is still the last one, because nothing else ran in its thread.
local function remember(thread, id, exchange, limit, most_bytes)
  local history = key('history', thread)
  if tonumber(limit) == 0 then return redis.call('DEL', history) end
  if last_remembered(thread) == id then
    redis.call('LSET', history, -1, exchange)
  else
    redis.call('RPUSH', history, exchange)
  end
  shorten(history, limit, most_bytes)
  keep(history, key('speakers', thread))
end

local function note_seen(thread)
  redis.call('SET', key('seen', thread), '1', 'PX', ARGV[2])
end

-- `ids` is a set.
local function forget_exchanges(thread, ids)
  local history = key('history', thread)
  for _, line in ipairs(redis.call('LRANGE', history, 0, -1)) do
    if ids[turn_of(line)] and redis.call('LREM', history, 1, line) == 1 then
      note_seen(thread)
    end
  end
end

local function is_queued(id, turn)
  return is_open(turn) and turn.thread and redis.call('LPOS', key('mailbox', turn.thread), id)
end

-- Counts a person's running turns. Removes those whose end will not be reported, because their record is
-- lost or was changed, or because their thread does not know them.
local function prune_and_count_running(person)
  local running = key('running', person)
  for _, id in ipairs(redis.call('SMEMBERS', running)) do
    local turn = record(id)
    local runs = turn.state == 'running' and turn.person == person and is_queued(id, turn)
    if not runs then redis.call('SREM', running, id) end
  end
  return redis.call('SCARD', running)
end

-- Repairs lost or changed keys. The id of a turn that is not queued is dropped. A thread that is in no
-- place, or throttled while nothing of its person runs, would wait forever: it is made ready.
local function repair_open(id)
  local turn = record(id)
  if not is_queued(id, turn) then return close(id, turn.person) end
  local thread, platform = turn.thread, platform_of(turn.thread)
  local first = record(redis.call('LINDEX', key('mailbox', thread), 0))
  if redis.call('ZSCORE', key('throttled', first.person), thread) then
    if prune_and_count_running(first.person) == 0 then wake_throttled(first.person) end
    return
  end
  local found = redis.call('ZSCORE', key('ready_threads', platform), thread)
    or redis.call('ZSCORE', key('delayed', platform), thread)
    or redis.call('HGET', key('claimed', platform), first.entry) == thread
  if not found then make_ready(thread) end
end

local function check_some_open()
  for _, id in ipairs(redis.call('ZRANDMEMBER', key('open'), 20)) do repair_open(id) end
end

-- A body is JSON that ends with the question. So the question can be removed and put back without decoding
-- the rest: cjson rounds large numbers. `head` is what precedes it.
local function with_question(head, text)
  return head .. ', "text": ' .. text .. '}'
end

local NO_QUESTION = with_question('', '""')

local function put_question(id, text)
  local body, size = unpack(redis.call('HMGET', key('turn', id), 'body', 'head_size'))
  if not (body and tonumber(size)) then return end
  redis.call('HSET', key('turn', id), 'body', with_question(string.sub(body, 1, tonumber(size)), text))
end

-- The context is dropped with its question.
local function drop_question(id)
  put_question(id, '""')
  redis.call('HDEL', key('turn', id), 'context')
end

-- `left_out` is in the head. Within a JSON string its quotes would have a backslash before them.
local function replace_question(id, text, left_out)
  local name = key('turn', id)
  local body, size = unpack(redis.call('HMGET', name, 'body', 'head_size'))
  if not (body and tonumber(size)) then return end
  local head = string.sub(body, 1, tonumber(size))
  head = string.gsub(head, '"left_out": %d+', '"left_out": ' .. left_out, 1)
  redis.call('HSET', name, 'body', with_question(head, text), 'head_size', #head)
end

local function lacks_question(id)
  local body = redis.call('HGET', key('turn', id), 'body') or ''
  return string.sub(body, -#NO_QUESTION) == NO_QUESTION
end

-- The question of the thread's last exchange.
local function last_question(thread)
  local question = decoded(redis.call('LINDEX', key('history', thread), -1) or '').question
  return type(question) == 'string' and question or nil
end

local function question_in(id)
  return decoded(redis.call('HGET', key('turn', id), 'body') or '').text
end

-- The id of the person who asked; nil if it cannot be read.
local function asker_of(id)
  local person = decoded(redis.call('HGET', key('turn', id), 'body') or '').person
  return type(person) == 'table' and person.id or nil
end

-- The id of a turn stays known for so long (ms), and is not admitted again.
local function mark_dropped(id, duration)
  redis.call('HSET', key('turn', id), 'state', 'dropped')
  redis.call('PEXPIRE', key('turn', id), duration)
end

-- Of a message whose turn may still be admitted.
local function mark_unknown(id)
  local marks = key('marks')
  mark_dropped(id, LATE_ADMISSION_MS)
  redis.call('ZADD', marks, now_ms(), id)
  redis.call('PEXPIRE', marks, LATE_ADMISSION_MS)
  redis.call('ZREMRANGEBYSCORE', marks, '-inf', now_ms() - LATE_ADMISSION_MS)
  if redis.call('ZCARD', marks) > MOST_MARKS then
    redis.call('DEL', key('turn', redis.call('ZPOPMIN', marks)[1]))
  end
end

-- The thread's last exchange must be this turn's. The record has a question that was edited since.
local function recall_question(id, thread)
  local question = lacks_question(id) and last_question(thread)
  if question then put_question(id, cjson.encode(question)) end
end

-- The id stays known for a while, so that the turn is not admitted again. The record of a turn that has to be
-- repaired is still needed, and a regenerated one is counted again at its end.
local function discard(id)
  local name, turn = key('turn', id), record(id)
  if not turn.thread then return end
  forget_exchanges(turn.thread, {[id] = true})
  local has_repair = redis.call('ZSCORE', key('repairs', platform_of(turn.thread)), id)
  if has_repair or is_open(turn) then return end
  for _, message in ipairs(ids_in(redis.call('HGET', name, MESSAGE_IDS))) do
    redis.call('DEL', key('posted', platform_of(turn.thread), message))
  end
  redis.call('DEL', name)
  redis.call('ZREM', key('turns', turn.thread), id)
  mark_dropped(id, LATE_ADMISSION_MS)
end

-- Adds an ended turn to its person's list, and discards the oldest beyond `most_bytes`.
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
    -- A turn that was regenerated has a later entry.
    if upto and redis.call('HGET', key('turn', oldest), 'kept') == upto then discard(oldest) end
  end
end

-- The thread's first turn and its record; nothing if none is left.
local function prune_to_first(thread)
  while true do
    local id = redis.call('LINDEX', key('mailbox', thread), 0)
    if not id then return end
    local turn = record(id)
    if redis.call('EXISTS', key('turn', id)) == 1 and not ENDED[turn.state] then
      if turn.thread ~= thread then redis.call('HSET', key('turn', id), 'thread', thread) end
      turn.thread = thread
      return id, turn
    end
    -- Its record has expired or was changed.
    redis.call('LPOP', key('mailbox', thread))
    close(id, turn.person)
    redis.call('SREM', key('running', turn.person), id)
  end
end

-- A full thread gets no further turn: if it is in no place, it is made ready.
local function repair_full(thread)
  local id, turn = prune_to_first(thread)
  if not id then return end
  redis.call('ZADD', key('open'), 'NX', now_ms(), id)
  redis.call('SADD', key('open', turn.person), id)
  keep(key('open'), key('open', turn.person))
  repair_open(id)
end

-- One person can fill a thread's slots; then further slots are for people who have none there. Turns that
-- will be answered together have one slot.
local function is_thread_full(thread, person, joins, limit)
  local slots, has_one, waiting = 0, false, nil
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    local known = redis.call('HMGET', key('turn', id), 'person', 'fence', 'joins')
    local may_join = known[2] == '0' and known[3] == '1' and known[1]
    if not may_join or may_join ~= waiting then slots = slots + 1 end
    has_one, waiting = has_one or known[1] == person, may_join
  end
  if slots < tonumber(limit) or joins and waiting == person then return false end
  return has_one or slots >= CROWD * limit
end

-- A person's id, of which `person` has the key.
local function id_of(person)
  return string.match(person, '[^:]*$')
end

-- The id itself, of which a key has the written form.
local function unquoted(written)
  return (string.gsub(written, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end))
end

-- As within a JSON string.
local function in_json(written)
  return (string.gsub(unquoted(written), '[\\"]', '\\%0'))
end

local function is_being_forgotten(platform, written)
  return redis.call('ZSCORE', prefix .. 'forgetting', 'person:' .. platform .. ':' .. written)
end

-- As ThreadKey writes it.
local function percent(letter)
  return string.format('%%%02X', string.byte(letter))
end

-- Notes that a person has spoken in a thread, so that it can be found. It expires with the history.
local function note_of(platform, written, thread)
  local name = key('of', platform, written)
  redis.call('SADD', name, thread)
  keep(name)
end

-- '' if there is room for one more turn.
local function refusal(person, person_limit, total_limit)
  if is_being_forgotten(platform_of(person), id_of(person)) then return 'forgetting' end
  local open = redis.call('SMEMBERS', key('open', person))
  if #open >= tonumber(person_limit) then
    for _, id in ipairs(open) do
      if not is_queued(id, record(id)) then redis.call('SREM', key('open', person), id) end
    end
  end
  if redis.call('ZCARD', key('open')) >= tonumber(total_limit) then check_some_open() end
  if redis.call('SCARD', key('open', person)) >= tonumber(person_limit) then return 'person' end
  return redis.call('ZCARD', key('open')) >= tonumber(total_limit) and 'full' or ''
end

-- If the thread is throttled for its first turn's person, another person does not wait for that.
local function wake_for_another(thread, person)
  local first = record(redis.call('LINDEX', key('mailbox', thread), 0))
  if first.person == person then return end
  if redis.call('ZREM', key('throttled', first.person), thread) == 1 then make_ready(thread) end
end

local function enqueue(id, thread, person)
  local mailbox = key('mailbox', thread)
  redis.call('HSET', key('turn', id), POSITION, next_position(person))
  redis.call('ZADD', key('open'), now_ms(), id)
  redis.call('SADD', key('open', person), id)
  if redis.call('RPUSH', mailbox, id) == 1 then
    make_ready(thread)
  else
    wake_for_another(thread, person)
  end
  keep(key('turn', id), mailbox, key('open'), key('open', person))
end

local function schedule_repair(id, thread, delay)
  local repairs = key('repairs', platform_of(thread))
  redis.call('HDEL', key('turn', id), REPAIR_ATTEMPTS)
  redis.call('ZADD', repairs, now_ms() + delay, id)
  keep(repairs)
end

-- These messages (JSON) may show something else than the turn ended with.
local function note_late_writes(id, message_ids)
  local name = key('turn', id)
  local late = ids_in(redis.call('HGET', name, LATE_WRITES))
  for _, message in ipairs(ids_in(message_ids)) do table.insert(late, message) end
  if #late > 0 then redis.call('HSET', name, LATE_WRITES, cjson.encode(late)) end
end

-- Notes about a thread expire with its history: only questions and answers renew them.
local function note_speaker(thread, id)
  local name = key('speakers', thread)
  local known = redis.call('SCARD', name)
  if is_being_forgotten(platform_of(thread), id) then return end
  if id ~= '' and known < MOST_SPEAKERS then redis.call('SADD', name, id) end
  if known == 0 then keep(name) end
end

-- Where the string of a JSON text ends that begins at `from`; nil if it does not.
local function end_of_string(json, from)
  local at = string.find(json, '["\\]', from + 1)
  while at and string.sub(json, at, at) ~= '"' do at = string.find(json, '["\\]', at + 2) end
  return at
end

-- Removes the messages of a person, and their name, from a context; `id` is as JSON has it. Returns the messages, too.
local function without_words(json, id)
  local from, removed = 1, {}
  while true do
    local at, name_at = string.find(json, '"person": {"id": "' .. id .. '", "name": "', from, true)
    local name_end = at and end_of_string(json, name_at)
    if not name_end then return json, removed end
    local _, text_at = string.find(json, '^}, "text": "', name_end + 1)
    local text_end = text_at and end_of_string(json, text_at)
    from = name_at
    if text_end then
      local before = string.sub(json, math.max(at - 500, 1), at - 1)
      table.insert(removed, string.match(before, '{"id": "([^"\\]*)", $'))
      local nobody = '"person": {"id": "", "name": ""}, "text": "'
      json = string.sub(json, 1, at - 1) .. nobody .. string.sub(json, text_end)
      from = at + #nobody
    end
  end
end

-- Removes people who are being forgotten from what a worker saves.
local function without_forgotten(json, thread)
  if json == '' then return json end
  for _, who in ipairs(redis.call('ZRANGE', prefix .. 'forgetting', 0, -1)) do
    local platform, written = string.match(who, '^person:([^:]*):(.*)$')
    if platform == platform_of(thread) then json = without_words(json, in_json(written)) end
  end
  return json
end

-- Notes the messages of a context of a thread, or of one of its exchanges, so that deleted ones can be found.
local function note_context_messages(thread, value)
  local said = value.messages or value.context
  said = type(said) == 'table' and said or {}
  for _, one in ipairs({value.quote or {}, unpack(said)}) do
    if type(one) == 'table' and type(one.id) == 'string' then
      redis.call('SADD', key('heard', one.id), thread)
      keep(key('heard', one.id))
      local person = type(one.person) == 'table' and one.person.id
      if type(person) == 'string' and person ~= '' then
        note_of(platform_of(thread), (string.gsub(person, '[^%w_.~-]', percent)), thread)
      end
    end
  end
end

-- As long as a thread is used, the messages that its exchanges show can be found.
local function renew_context_index(thread)
  for _, line in ipairs(redis.call('LRANGE', key('history', thread), 0, -1)) do
    if string.find(line, '"context": [', 1, true) or string.find(line, '"quote": {', 1, true) then
      note_context_messages(thread, decoded(line))
    end
  end
end

-- Empties the text of a message in a context. In a JSON string the quotes would have backslashes.
local function without_text(json, id)
  local _, at = string.find(json, '{"id": "' .. id .. '", "person": ', 1, true)
  local _, from = string.find(json, ', "text": "', at or #json, true)
  local to = from and string.find(json, '["\\]', from + 1)
  while to and string.sub(json, to, to) ~= '"' do to = string.find(json, '["\\]', to + 2) end
  return to and string.sub(json, 1, from) .. string.sub(json, to) or json
end

-- A turn that runs has the text and will report it with its exchange.
local function drop_from_contexts(id)
  for _, thread in ipairs(redis.call('SMEMBERS', key('heard', id))) do
    local history = key('history', thread)
    for at, line in ipairs(redis.call('LRANGE', history, 0, -1)) do
      local without = without_text(line, id)
      if without ~= line then redis.call('LSET', history, at - 1, without) end
    end
    local newest = redis.pcall('GET', key('newest', thread))
    local turns = redis.call('LRANGE', key('mailbox', thread), 0, -1)
    if type(newest) == 'string' then table.insert(turns, newest) end
    for _, one in ipairs(turns) do
      local name = key('turn', one)
      local context = redis.call('HGET', name, 'context')
      if context then
        local unheard = ids_in(redis.call('HGET', name, 'unheard') or '')
        table.insert(unheard, id)
        redis.call('HSET', name, 'context', without_text(context, id), 'unheard', cjson.encode(unheard))
      end
    end
  end
  redis.call('DEL', key('heard', id))
end

-- The body stays as it is, so additions to the turn's place have a field of their own.
local function add_to_place(id, added)
  local known = decoded(redis.call('HGET', key('turn', id), PLACE_CHANGES) or '')
  for name, value in pairs(added) do known[name] = value end
  redis.call('HSET', key('turn', id), PLACE_CHANGES, cjson.encode(known))
end

local function store_turn(id, thread, person, head, text, quota)
  redis.call('HSET', key('turn', id), 'state', 'queued', 'fence', 0, ATTEMPTS, 0,
    'thread', thread, 'person', person, 'body', with_question(head, text), 'head_size', #head)
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
    redis.call('HSETNX', name, PREVIOUS_ANSWER, redis.call('HGET', name, 'shown') or '')
    recall_question(id, turn.thread)
  end
  redis.call('HSET', name, 'state', 'queued', ATTEMPTS, 0, 'shown', '')
  redis.call('HDEL', name, 'stop', 'end', 'begun', MAX_PROGRESS, MORE)
  copy_preferences(id, turn.thread)
  enqueue(id, turn.thread, turn.person)
end

-- The text of earlier attempts answers a question that was edited meanwhile. It stays until there is text
-- of the new answer. Text without a message was never visible.
local function begin_anew(id)
  local name, removed = key('turn', id), removed_messages(id)
  local known = redis.call('HMGET', name, MESSAGE_IDS, 'shown')
  if known[1] and known[1] ~= '[]' and known[2] and known[2] ~= '' then
    redis.call('HSETNX', name, PREVIOUS_ANSWER, known[2])
  end
  redis.call('HSET', name, ATTEMPTS, 0, 'shown', '')
  local used = decoded(redis.call('HGET', name, MORE) or '').used
  redis.call('HDEL', name, ANEW, MAX_PROGRESS, MORE)
  count(name, 'begun', 1)
  local more = {used = tonumber(used), removed = #removed > 0 and removed or nil}
  if next(more) then redis.call('HSET', name, MORE, cjson.encode(more)) end
end

local verbs = {}

-- Notes that people have spoken in a thread, and returns how many have; 0 if the bot was never asked there.
-- `ours` is '1' if it is a thread of the bot for another reason.
function verbs.note_speakers(thread, ours, ...)
  local name = key('speakers', thread)
  if ours == '' and redis.call('EXISTS', name) == 0 then return 0 end
  for _, id in ipairs({...}) do note_speaker(thread, id) end
  return redis.call('SCARD', name)
end

-- `context` is JSON, or '' if the question replies to nothing. So is `quota`: what the person and the server may use
-- in a day, and an `estimate` of the tokens that the turn needs.
function verbs.admit(id, thread, person, head, text, thread_limit, person_limit, total_limit, context, quota)
  local known = redis.call('HMGET', key('turn', id), 'state', 'body')
  if known[1] then
    -- It may be the same call, sent again because its answer was lost.
    local same = known[2] and string.sub(known[2], 1, #head) == head
    return known[1] ~= 'dropped' and same and 'admitted' or 'duplicate'
  end
  if redis.call('EXISTS', key('answered', id)) == 1 then return 'duplicate' end
  -- A refused person has spoken, but the thread does not become the bot's.
  if redis.call('EXISTS', key('speakers', thread)) == 1 then note_speaker(thread, id_of(person)) end
  local joins = decoded(head .. '}').joins == true
  if is_thread_full(thread, person, joins, thread_limit) then
    repair_full(thread)
    if is_thread_full(thread, person, joins, thread_limit) then return 'thread' end
  end
  local full = refusal(person, person_limit, total_limit)
  quota = decoded(quota or '')
  if full == '' then full = quota_refusal(person, thread, quota, 1, natural(quota.estimate)) end
  if full ~= '' then return full end

  store_turn(id, thread, person, head, text, quota)
  if context and context ~= '' then
    context = without_forgotten(context, thread)
    redis.call('HSET', key('turn', id), 'context', context)
    note_context_messages(thread, decoded(context))
  end
  if joins then redis.call('HSET', key('turn', id), 'joins', '1') end
  return 'admitted'
end

function verbs.check_room(person, thread, person_limit, total_limit, quota)
  local full = refusal(person, person_limit, total_limit)
  quota = decoded(quota)
  return full ~= '' and full or quota_refusal(person, thread, quota, 1, natural(quota.estimate))
end

-- Why a person may not regenerate or continue the thread's last turn; '' if they may. A turn without
-- an exchange is the last one as long as none has followed it (`after`).
local function press_refusal(id, turn, asker, person_limit, total_limit, quota)
  local known, person = redis.call('HMGET', key('turn', id), 'forget', 'after'), asker_of(id)
  if known[1] or not person or not turn.thread or turn.state == 'dropped' then return 'gone' end
  if person ~= asker then return 'asker' end
  if redis.call('LINDEX', key('mailbox', turn.thread), 0) == id then return 'thread' end
  local last = last_remembered(turn.thread)
  if last ~= id and last ~= known[2] then return last == '' and 'gone' or 'older' end
  if redis.call('LLEN', key('mailbox', turn.thread)) > 0 then return 'thread' end
  local full = refusal(turn.person, person_limit, total_limit)
  return full ~= '' and full or quota_refusal(turn.person, turn.thread, quota, 1, natural(quota.estimate))
end

-- What the turn has shown, and its exchange in the history, stay until there is a new answer. `place`, which may
-- be '', is added to the turn's place. `text` is JSON, or '' if the question is as it was.
function verbs.regenerate(id, asker, press, place, person_limit, total_limit, quota, text, left_out)
  local name, turn, pressed = key('turn', id), record(id), key('pressed', press)
  if redis.call('EXISTS', pressed) == 1 then return 'again' end
  quota = decoded(quota or '')
  local refused = press_refusal(id, turn, asker, person_limit, total_limit, quota)
  if refused ~= '' then return refused end

  redis.call('SET', pressed, id, 'PX', PRESS_MS)
  if place ~= '' then add_to_place(id, decoded(place)) end
  enqueue_again(id, turn, last_remembered(turn.thread), quota)
  if (text or '') ~= '' then replace_question(id, text, left_out) end
  return 'again'
end

-- Admits the turn `following`, which continues the answer of a thread's last turn. It is a turn of its own, so
-- a call or a press that comes twice finds its id.
function verbs.continue(id, asker, following, head, text, person_limit, total_limit, quota)
  local turn = record(id)
  if redis.call('EXISTS', key('turn', following)) == 1 then return 'admitted' end
  quota = decoded(quota or '')
  local refused = press_refusal(id, turn, asker, person_limit, total_limit, quota)
  if refused ~= '' then return refused end
  if last_remembered(turn.thread) ~= id then return 'gone' end
  if redis.call('HGET', key('turn', id), 'end') ~= 'cut' then return 'ended' end
  local continued = continued_by(id)
  table.insert(continued, following)
  redis.call('HSET', key('turn', id), 'continued', cjson.encode(continued))
  store_turn(following, turn.thread, turn.person, head, text, quota)
  return 'admitted'
end

-- Stores a person's rating of a remembered answer in its exchange, as the last field. It is added to the text
-- of the line, because cjson would round its numbers; inside of a JSON string the quotes would have backslashes.
-- Returns {model, 'first' or 'again'}.
function verbs.rate(id, person, rating)
  local turn, written = record(id), (string.gsub(person, '[^%w_.~-]', percent))
  local history = key('history', turn.thread or '')
  for at, line in ipairs(redis.call('LRANGE', history, 0, -1)) do
    if turn_of(line) == id then
      local exchange = decoded(line)
      local ratings, known = type(exchange.ratings) == 'table' and exchange.ratings or {}, 0
      for _ in pairs(ratings) do known = known + 1 end
      local again = ratings[person] ~= nil
      if (again or known < MOST_RATINGS) and not is_being_forgotten(platform_of(turn.thread), written) then
        note_of(platform_of(turn.thread), written, turn.thread)
        ratings[person] = rating
        local behind = string.find(line, ', "ratings": {', 1, true) or #line
        local head = string.sub(line, 1, behind - 1)
        redis.call('LSET', history, at - 1, head .. ', "ratings": ' .. cjson.encode(ratings) .. '}')
      end
      local counts = not again and known < MOST_RATINGS
      return {type(exchange.model) == 'string' and exchange.model or '', counts and 'first' or 'again'}
    end
  end
  return is_open(turn) and 'thread' or 'gone'
end

-- The question of a turn that may still be edited: it is open, or the thread's last.
local function question_of(id, turn, body, after)
  local last = last_remembered(turn.thread)
  if not is_open(turn) and last ~= id and last ~= after then return nil end
  return body.text == '' and last == id and last_question(turn.thread) or body.text
end

local function keeps_others_waiting(thread, person)
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    local other = redis.call('HGET', key('turn', id), 'person')
    if other and other ~= person then return true end
  end
  return false
end

-- Replaces the text of a question that its author has edited, at `edited` (ms), and answers it again. If
-- the turn is not known and was asked less than a day ago, it is admitted: it may be a question only now, or
-- its admission comes later. Of two edits the later wins, in any order. Platforms may report an edit that
-- changes no text.
function verbs.edit(id, thread, person, head, text, asked, edited, asker, left_out,
    thread_limit, person_limit, total_limit, context, quota)
  local name, turn = key('turn', id), record(id)
  if not turn.state then
    if now_ms() - asked >= DAY_MS or redis.call('EXISTS', key('answered', id)) == 1 then return 'ignored' end
    local answer =
      verbs.admit(id, thread, person, head, text, thread_limit, person_limit, total_limit, context, quota)
    if answer == 'admitted' then redis.call('HSET', name, 'edited', edited) end
    return answer
  end
  local known = redis.call('HMGET', name, 'body', 'edited', 'forget', 'head_size')
  local lead = lead_of(id) or id
  local whole = record(lead)
  local body = decoded(known[1] or '')
  if turn.state == 'dropped' or known[3] or not turn.thread or not tonumber(known[4]) then return 'ignored' end
  if asker_of(id) ~= asker or (tonumber(known[2]) or 0) > tonumber(edited) then return 'ignored' end
  local question = question_of(lead, whole, body, redis.call('HGET', key('turn', lead), 'after'))
  if not question or question == decoded('[' .. text .. ']')[1] then return 'ignored' end

  quota = decoded(quota or '')
  local estimate = natural(quota.estimate)
  if is_open(whole) then
    -- The model is asked once more, unless no worker has begun.
    local again = whole.fence ~= '0'
    local _, _, reserved = reserved_by(id)
    local more = again and estimate or math.max(estimate - reserved, 0)
    local used = quota_refusal(turn.person, turn.thread, quota, again and 1 or 0, more)
    if used ~= '' then return used end
    local begun = tonumber(redis.call('HGET', key('turn', lead), 'begun')) or 0
    if begun >= MOST_BEGINNINGS and keeps_others_waiting(turn.thread, turn.person) then return 'thread' end
    reserve(lead, turn.person, turn.thread, again and 1 or 0, more)
    -- A stop was for the answer to the previous text.
    redis.call('HDEL', key('turn', lead), 'stop')
    copy_preferences(lead, turn.thread)
    ask_for_anew(lead)
  else
    if redis.call('LLEN', key('mailbox', turn.thread)) > 0 then return 'ignored' end
    local full = refusal(turn.person, person_limit, total_limit)
    if full == '' then full = quota_refusal(turn.person, turn.thread, quota, 1, estimate) end
    if full ~= '' then return full end
    enqueue_again(lead, whole, last_remembered(turn.thread), quota)
  end
  replace_question(id, text, left_out)
  redis.call('HSET', name, 'edited', edited)
  return 'edited'
end

-- A person's turn runs beyond the limit if another person waits behind it in the thread.
local function may_run(id, turn, limit)
  local person, running = turn.person, key('running', turn.person)
  if redis.call('SISMEMBER', running, id) == 1 then return true end
  if redis.call('SCARD', running) < tonumber(limit) then return true end
  return prune_and_count_running(person) < tonumber(limit) or keeps_others_waiting(turn.thread, person)
end

-- If a key is lost, a thread may get a second token while a worker has it. If both led to its turn, they would
-- take the turn from each other until its attempts are used up.
local function has_another_token(thread, turn, platform, entry)
  if turn.state ~= 'running' or turn.entry == entry then return false end
  return redis.call('HGET', key('claimed', platform), turn.entry) == thread and is_pending(platform, turn.entry)
end

-- The last message of the thread's newest reply; '' if there is none.
local function last_above(thread)
  local newest = redis.pcall('GET', key('newest', thread))
  return type(newest) == 'string' and last_of(redis.call('HGET', key('turn', newest), MESSAGE_IDS)) or ''
end

-- The turns of the same person that wait directly behind a turn are answered with it, if they may be.
local function join_followers(id, turn)
  if redis.call('HGET', key('turn', id), 'joins') ~= '1' then return end
  local ids, size = {}, redis.call('HSTRLEN', key('turn', id), 'body')
  for _, one in ipairs(redis.call('LRANGE', key('mailbox', turn.thread), 1, -1)) do
    local known = redis.call('HMGET', key('turn', one), 'person', 'fence', 'joins', 'state')
    size = size + redis.call('HSTRLEN', key('turn', one), 'body')
    local waits = known[2] == '0' and known[3] == '1' and known[4] == 'queued'
    if known[1] ~= turn.person or not waits or size > JOINED_BYTES then break end
    redis.call('HSET', key('turn', one), 'lead', id)
    table.insert(ids, one)
  end
  if #ids > 0 then redis.call('HSET', key('turn', id), 'joined', cjson.encode(ids)) end
end

-- The turns that wait behind one which was taken, without those that are answered with it.
local function waiting_behind(id, thread)
  local waiting, own = {}, {}
  for _, one in ipairs(joined_to(id)) do own[one] = true end
  for _, one in ipairs(redis.call('LRANGE', key('mailbox', thread), 1, -1)) do
    if not own[one] and redis.call('EXISTS', key('turn', one)) == 1 then table.insert(waiting, one) end
  end
  return waiting
end

-- If others wait behind a turn when it is taken, people see several questions before the first answer. Then
-- each of these answers refers to its question.
local function note_several(id, thread)
  local waiting = waiting_behind(id, thread)
  if #waiting == 0 then return end
  for _, one in ipairs({id, unpack(waiting)}) do add_to_place(one, {refers = true}) end
end

-- In the order in which they were asked, which for some platforms is not that of admission. Empty if the turn
-- is answered alone.
local function joined_questions(id)
  local asked, texts = {}, {}
  for at, one in ipairs({id, unpack(joined_to(id))}) do
    local body = decoded(redis.call('HGET', key('turn', one), 'body') or '')
    if type(body.text) == 'string' and body.text ~= '' then
      table.insert(asked, {tonumber(body.asked_at) or 0, at, body.text})
    end
  end
  table.sort(asked, function(one, other)
    return one[1] < other[1] or one[1] == other[1] and one[2] < other[2]
  end)
  for _, one in ipairs(asked) do table.insert(texts, one[3]) end
  return #texts > 1 and cjson.encode(texts) or '[]'
end

-- A limit of 0 exchanges means that nothing said outlives its turn: the record expires soon, and the id stays
-- known without it.
local function keep_ended(id, thread, limits)
  redis.call('ZADD', key('turns', thread), now_ms(), id)
  redis.call('ZREMRANGEBYSCORE', key('turns', thread), '-inf', now_ms() - ARGV[2])
  keep(key('turns', thread))
  if limits.history > 0 then return keep(key('turn', id)) end
  redis.call('PEXPIRE', key('turn', id), limits.late_write_ms + LAST_WORDS_MS)
  redis.call('SET', key('answered', id), '1', 'PX', ARGV[2])
end

-- The questions of joined turns stay in their records, so that they can be edited one by one.
local function end_joined(id, turn, outcome, counts, limits)
  for _, one in ipairs(joined_to(id)) do
    if lead_of(one) == id and record(one).state == 'queued' then
      settle(one, turn, counts, 0)
      local name = key('turn', one)
      redis.call('HSET', name, 'state', outcome, MESSAGE_IDS, '[]', 'shown', '')
      redis.call('HDEL', name, POSITION, ATTEMPTS, ANEW, 'stop')
      keep_ended(one, turn.thread, limits)
      redis.call('LREM', key('mailbox', turn.thread), 1, one)
      close(one, turn.person)
      local size = RECORD_BYTES + redis.call('HSTRLEN', name, 'body')
      count_kept(one, turn.person, size, limits.person_bytes)
    end
  end
end

-- The next thread that may be taken, with its first turn and that one's record; nothing if there is none. A token
-- that was reclaimed leads to the thread that was taken with it.
local function next_to_take(platform, entry, person_limit)
  local thread = redis.call('HGET', key('claimed', platform), entry)
  while true do
    thread = thread or redis.call('ZPOPMIN', key('ready_threads', platform))[1]
    if not thread then return end
    local id, turn = prune_to_first(thread)
    if id and not has_another_token(thread, turn, platform, entry) then
      if may_run(id, turn, person_limit) then return thread, id, turn end
      redis.call('ZADD', key('throttled', turn.person), position_of(thread), thread)
      keep(key('throttled', turn.person))
    end
    thread = nil
  end
end

-- What a worker needs of a turn that it has taken: 16 values, in the order in which queue.py (`_read_taken`) reads them.
local function for_worker(id, thread, fence, attempts)
  local body, place_changes, stop, previous_answer, above, message_ids, shown, more, context, preferences =
    unpack(redis.call('HMGET', key('turn', id), 'body', PLACE_CHANGES, 'stop', PREVIOUS_ANSWER, 'above',
      MESSAGE_IDS, 'shown', MORE, 'context', 'preferences'))
  return {
    id, thread, fence, attempts,
    body, joined_questions(id), place_changes or '{}', context or '', preferences or '',
    message_ids or '[]', shown or '', more or '{}', previous_answer or '',
    above or '', stop or '', open_for(id),
  }
end

-- Returns what `for_worker` does, or false if there is no turn for the token.
function verbs.take(platform, entry, worker, person_limit)
  if not is_pending(platform, entry, worker) then return false end
  local thread, id, turn = next_to_take(platform, entry, person_limit)
  if not thread then
    drop_ticket(platform, entry)
    return false
  end
  local claimed, name = key('claimed', platform), key('turn', id)
  redis.call('HSET', claimed, entry, thread)
  redis.call('SADD', key('running', turn.person), id)
  keep(claimed, key('running', turn.person))
  if redis.call('HEXISTS', name, ANEW) == 1 then begin_anew(id) end
  redis.call('HSET', name, 'state', 'running', 'entry', entry, 'worker', worker)
  local fence, attempts = count(name, 'fence', 1), count(name, ATTEMPTS, 1)
  if fence == 1 then redis.call('HSET', name, 'above', last_above(thread)) end
  if fence == 1 then
    join_followers(id, turn)
    note_several(id, thread)
  end
  return for_worker(id, thread, fence, attempts)
end

-- A person's request to the worker of a turn: to restart, or to stop.
local function request_to(id)
  local known = redis.call('HMGET', key('turn', id), ANEW, 'stop')
  return known[1] and ANEW or known[2] or ''
end

-- If another worker has reclaimed the token, the lease is lost, even if that worker has not taken the turn
-- yet: if this one claimed it back, both would work on the turn.
function verbs.renew(id, fence, worker)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  local platform = platform_of(turn.thread)
  if not is_pending(platform, turn.entry, worker) then return 'lost' end
  redis.call('XCLAIM', key('tokens', platform), GROUP, worker, 0, turn.entry, 'JUSTID')
  return request_to(id)
end

-- A message of an answer may have been deleted before the store knew it.
local function note_posted(thread, message_ids)
  local platform = platform_of(thread)
  for _, message in ipairs(ids_in(message_ids)) do
    redis.call('SET', key('posted', platform, message), thread, 'PX', ARGV[2])
    if redis.call('DEL', key('deleted', platform, message)) == 1 then
      verbs.forget('', platform, 0, message)
    end
  end
end

-- An attempt that shows more than all before it counts as the first again: a turn that kills its workers does
-- so each time at the same point. Text without a message was never visible.
function verbs.save(id, fence, message_ids, shown, more)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  local progress = tonumber(redis.call('HGET', key('turn', id), MAX_PROGRESS)) or 0
  if message_ids ~= '[]' and #shown > progress then
    redis.call('HSET', key('turn', id), ATTEMPTS, 1, MAX_PROGRESS, #shown)
  end
  local request = request_to(id)
  redis.call('HSET', key('turn', id), MESSAGE_IDS, message_ids, MORE, more)
  -- A save before a restart has the end of a stopped answer, which will not be shown.
  if request ~= ANEW then redis.call('HSET', key('turn', id), 'shown', shown) end
  note_posted(turn.thread, message_ids)
  -- A page may have been deleted before it was known.
  return request_to(id)
end

-- Saves the messages of others that the prompt shows, before the model is asked.
function verbs.save_context(id, fence, context)
  local turn = record(id)
  if is_record_lost(id) then return '' end
  if not holds(turn, fence) then return 'lost' end
  context = without_forgotten(context, turn.thread)
  redis.call('HSET', key('turn', id), 'context', context)
  note_context_messages(turn.thread, decoded(context))
  return ''
end

-- Whether the question of a turn that was joined to another one is part of that one's exchange. A turn that has
-- ended without an exchange notes what it came `after`.
local function is_in_another(id)
  local lead = lead_of(id)
  return lead and redis.call('HEXISTS', key('turn', lead), 'after') == 0
end

-- Returns the messages, by their turns' ids, that are excluded from the context: questions that were forgotten, those
-- that wait or run and will be in the history, and those that were answered together with another one.
function verbs.withheld(...)
  local found = {}
  for _, id in ipairs({...}) do
    local turn = record(id)
    local forgotten = turn.state == 'dropped' or redis.call('HEXISTS', key('turn', id), 'forget') == 1
    if forgotten or is_open(turn) or is_in_another(id) then
      table.insert(found, id)
    end
  end
  return found
end

-- Whether a turn has no answer, and none has followed it.
local function may_be_retried(id, thread)
  local known = redis.call('HMGET', key('turn', id), 'forget', 'after')
  return not known[1] and known[2] == last_remembered(thread)
end

-- Notes the thread's newest reply and returns the one that is older now; nothing if there is none, or if this one
-- shows nothing. A reply that was written anew may be above a failed one, which stays the newest while it can be
-- retried: then this one is the older.
local function note_newest(id, thread, message_ids)
  local name = key('newest', thread)
  if last_of(message_ids) == '' then return end
  local before = redis.pcall('GET', name)
  if type(before) ~= 'string' or before == id then before = nil end
  local has_ended_before = redis.call('HEXISTS', key('turn', id), 'kept') == 1
  if before and has_ended_before and may_be_retried(before, thread) then return id end
  -- A forgotten answer has no buttons.
  if before and redis.call('HEXISTS', key('turn', id), 'forget') == 1 then return id end
  redis.call('SET', name, id, 'PX', ARGV[2])
  return before
end

-- An exchange without messages that were deleted, and people who were forgotten, while a worker had it.
local function without_withdrawn(exchange, id, thread)
  for _, one in ipairs(ids_in(redis.call('HGET', key('turn', id), 'unheard') or '')) do
    exchange = without_text(exchange, one)
  end
  redis.call('HDEL', key('turn', id), 'unsaid')
  return without_forgotten(exchange, thread)
end

-- `last` is the thread's last remembered turn.
local function end_without_exchange(id, thread, last)
  local name = key('turn', id)
  redis.call('HSET', name, 'after', last)
  local context = decoded(redis.call('HGET', name, 'context') or '').messages
  if last == '' and (type(context) ~= 'table' or #context == 0) then note_seen(thread) end
end

local function end_with_exchange(id, thread, exchange, limits)
  remember(thread, id, exchange, limits.history, limits.history_bytes)
  renew_context_index(thread)
  redis.call('HDEL', key('turn', id), PREVIOUS_ANSWER, 'after')
end

local function note_dead(id, ended)
  redis.call('XADD', key('dead'), 'MAXLEN', '~', 1000, '*', 'turn', id)
  keep(key('dead'))
  -- Without text, the turn may not have its apology yet.
  if ended.shown ~= '' then note_late_writes(id, ended.message_ids) end
end

local function store_outcome(id, ended)
  local name = key('turn', id)
  redis.call('HSET', name, 'state', ended.outcome, MESSAGE_IDS, ended.message_ids, 'shown', ended.shown,
    'end', ended.end_kind)
  redis.call('HDEL', name, 'entry', 'worker', POSITION, ATTEMPTS, MAX_PROGRESS, MORE, 'stop')
end

-- The history has the question, unless it was edited since. Without an exchange the record keeps it, so that
-- it can be regenerated. Without a history the record has all texts for a while.
local function keeps_question(id, thread, exchange, last, limits)
  return #joined_to(id) > 0 or limits.history == 0
    or exchange == '' and (last ~= id or last_question(thread) ~= question_in(id))
end

-- Gives the slots of an ended turn, in its thread and among the running turns of its person, to the next ones.
local function make_way(id, turn)
  redis.call('LREM', key('mailbox', turn.thread), 1, id)
  close(id, turn.person)
  release(id, turn)
  if redis.call('LLEN', key('mailbox', turn.thread)) > 0 then make_ready(turn.thread) end
  wake_throttled(turn.person)
end

local function count_ended(id, person, ended, keeps, limits)
  -- A previous answer that stays is counted already.
  if ended.exchange == '' and not keeps then return end
  local size = RECORD_BYTES + #ended.shown + #ended.exchange
  if keeps then
    size = size + redis.call('HSTRLEN', key('turn', id), 'body') + redis.call('HSTRLEN', key('turn', id), 'context')
  end
  count_kept(id, person, size, limits.person_bytes)
end

-- Writes a reply once more, now that other buttons belong below it.
local function repair_buttons(id, thread)
  note_late_writes(id, redis.call('HGET', key('turn', id), MESSAGE_IDS) or '')
  schedule_repair(id, thread, 0)
end

-- `ended` has the arguments of `finish`. Returns as `finish` does.
local function end_turn(id, turn, ended, last, limits)
  local outcome, thread = ended.outcome, turn.thread
  -- A question that only failed costs nothing.
  local counts = ended.exchange ~= '' or outcome ~= 'failed' and outcome ~= 'dead'
  end_joined(id, turn, outcome, counts, limits)
  settle(id, turn, counts, ended.used)
  ended.exchange = without_withdrawn(ended.exchange, id, thread)
  local forgotten = redis.call('HGET', key('turn', id), 'forget')
  if forgotten == WITH_ANSWER then ended.shown = '' end
  if ended.exchange == '' then
    end_without_exchange(id, thread, last)
  elseif not forgotten then
    end_with_exchange(id, thread, ended.exchange, limits)
  end
  if outcome == 'dead' then note_dead(id, ended) end
  store_outcome(id, ended)
  local keeps = keeps_question(id, thread, ended.exchange, last, limits)
  if forgotten or not keeps then drop_question(id) end
  keep_ended(id, thread, limits)
  local older = note_newest(id, thread, ended.message_ids)
  if forgotten == AFTER_REPAIR then repair_buttons(id, thread) end
  if tonumber(turn.fence) > 1 or outcome == 'dead' then schedule_repair(id, thread, limits.late_write_ms) end
  make_way(id, turn)
  count_ended(id, turn.person, ended, keeps, limits)
  return older and {older} or 'ok'
end

-- A repeated call, whose first answer was lost, changes nothing. `end_kind` is how the answer ended, `used` how many
-- tokens it took, '' if that is not known, and `limits` JSON: after how long a write of an earlier attempt has
-- arrived, or never will (`late_write_ms`), and the limits of storage (`history`, `history_bytes`, `person_bytes`). Returns
-- 'ok', or {the turn whose reply is older than another one now}.
function verbs.finish(id, fence, outcome, message_ids, shown, exchange, end_kind, used, limits)
  local turn = record(id)
  if turn.fence == fence and turn.state == outcome or is_record_lost(id) then return 'ok' end
  if not holds(turn, fence) then return 'lost' end

  local name, last = key('turn', id), last_remembered(turn.thread)
  -- Messages that were posted while the store was away are new here.
  redis.call('HSET', name, MESSAGE_IDS, message_ids)
  note_posted(turn.thread, message_ids)
  if redis.call('HEXISTS', name, ANEW) == 1 then
    redis.call('HSET', name, 'shown', shown, MORE, cjson.encode({used = natural(used)}))
    return ANEW
  end
  local ended = {
    outcome = outcome, message_ids = message_ids, shown = shown, exchange = exchange,
    end_kind = end_kind, used = used,
  }
  return end_turn(id, turn, ended, last, decoded(limits))
end

-- Ends a turn with an unreadable record as dead. It is found by its token, because a client may be unable to
-- write its id.
function verbs.give_up(platform, entry, fence, limits)
  local thread = redis.call('HGET', key('claimed', platform), entry)
  local id = thread and redis.call('LINDEX', key('mailbox', thread), 0)
  if not id then return 'lost' end
  local known = redis.call('HMGET', key('turn', id), MESSAGE_IDS, 'shown')
  redis.call('HDEL', key('turn', id), ANEW)
  return verbs.finish(id, fence, 'dead', known[1] or '[]', known[2] or '', '', 'failed', nil, limits)
end

-- `counts` is '1' if the attempt counts, '' if the turn is only handed over.
function verbs.release(id, fence, delay, counts)
  local turn = record(id)
  if turn.fence == fence and turn.state == 'queued' then return 'ok' end
  if not holds(turn, fence) then return 'lost' end
  redis.call('HSET', key('turn', id), 'state', 'queued')
  if counts == '' then count(key('turn', id), ATTEMPTS, -1) end
  release(id, turn)
  if tonumber(delay) > 0 then
    local delayed = key('delayed', platform_of(turn.thread))
    redis.call('ZADD', delayed, now_ms() + math.min(delay, DAY_MS), turn.thread)
    keep(delayed)
  else
    make_ready(turn.thread)
  end
  wake_throttled(turn.person)
  return 'ok'
end

function verbs.others_wait(id, thread)
  return #waiting_behind(id, thread) > 0 and 1 or 0
end

function verbs.report_late_writes(id, message_ids)
  local thread = record(id).thread
  if not thread then return 0 end
  note_late_writes(id, message_ids)
  schedule_repair(id, thread, 0)
  return 1
end

local function end_repair(platform, id)
  if redis.call('HGET', key('turn', id), 'forget') == AFTER_REPAIR then
    redis.call('HSET', key('turn', id), 'shown', '')
  end
  return redis.call('ZREM', key('repairs', platform), id)
end

-- Returns {id, claim, body, place changes, late writes, thread} of a due repair, or false if there is none. The
-- claim expires after `duration` ms. A turn that runs again schedules its repair when it ends.
function verbs.claim_repair(platform, duration)
  local repairs = key('repairs', platform)
  while true do
    local id = redis.call('ZRANGEBYSCORE', repairs, '-inf', now_ms(), 'LIMIT', 0, 1)[1]
    if not id then return false end
    local name = key('turn', id)
    local known = redis.call('HMGET', name, 'state', 'body', PLACE_CHANGES, LATE_WRITES, 'thread')
    local ended = known[1] and known[1] ~= 'queued' and known[1] ~= 'running'
    if ended and count(name, REPAIR_ATTEMPTS, 1) <= MOST_REPAIR_ATTEMPTS then
      local claim = now_ms() + duration
      redis.call('ZADD', repairs, claim, id)
      return {id, claim, known[2], known[3] or '{}', known[4] or '[]', known[5] or ''}
    end
    end_repair(platform, id)
  end
end

-- Changes nothing if the repair was scheduled again, or claimed by another worker, meanwhile.
function verbs.complete_repair(platform, id, claim)
  local repairs = key('repairs', platform)
  if redis.call('ZSCORE', repairs, id) ~= claim then return 0 end
  redis.call('HDEL', key('turn', id), LATE_WRITES, REPAIR_ATTEMPTS)
  return end_repair(platform, id)
end

-- The time in the id of a stream's entry.
local function time_of(entry)
  return tonumber(string.match(entry, '^%d+'))
end

-- If a worker's name is deleted in the stream's group, or the group is set to an id that is ahead of the
-- stream, tokens are never delivered. Deletes such tokens among the oldest; their threads get new ones.
local function drop_lost_tokens(platform)
  local tokens = key('tokens', platform)
  for _, group in ipairs(redis.pcall('XINFO', 'GROUPS', tokens)) do
    local name, delivered, last = group[2], group[8], redis.call('XINFO', 'STREAM', tokens)[8]
    if name == GROUP and time_of(delivered) > time_of(last) then
      redis.call('XGROUP', 'SETID', tokens, GROUP, last)
      delivered = last
    end
    local oldest = name == GROUP and redis.call('XRANGE', tokens, '-', delivered, 'COUNT', 20) or {}
    for _, token in ipairs(oldest) do
      if not is_pending(platform, token[1]) then redis.call('XDEL', tokens, token[1]) end
    end
  end
end

-- If a stream is lost, so are its tokens. Ready threads get new ones. Threads that were taken become ready
-- again, and their workers learn from it that they have lost the lease.
local function replace_lost_tokens(platform)
  local tokens, claimed = key('tokens', platform), key('claimed', platform)
  local taken = redis.call('HGETALL', claimed)
  for i = 1, #taken, 2 do
    if not is_pending(platform, taken[i]) then
      drop_ticket(platform, taken[i])
      make_ready(taken[i + 1])
    end
  end
  drop_lost_tokens(platform)
  local ready = redis.call('ZCARD', key('ready_threads', platform))
  local free = redis.call('XLEN', tokens) - redis.call('HLEN', claimed)
  for _ = 1, math.min(ready - free, ready) do
    redis.call('XADD', tokens, '*', 'platform', platform)
    keep(tokens)
  end
end

-- Creates the platform's stream. Without `keep`, a stream that is never written would not expire.
function verbs.open(platform)
  local tokens = key('tokens', platform)
  local made = redis.pcall('XGROUP', 'CREATE', tokens, GROUP, '0', 'MKSTREAM')
  -- In a store that is full, a worker would otherwise repeat its read without a pause.
  if made.err and not string.find(made.err, '^BUSYGROUP') then error(made) end
  keep(tokens)
  return 1
end

local function end_pauses(platform, from, to)
  local delayed = key('delayed', platform)
  for _, thread in ipairs(redis.call('ZRANGEBYSCORE', delayed, from, to, 'LIMIT', 0, 100)) do
    redis.call('ZREM', delayed, thread)
    make_ready(thread)
  end
end

function verbs.wake_delayed(platform)
  check_some_open()
  replace_lost_tokens(platform)
  local now = now_ms()
  end_pauses(platform, '-inf', now)
  -- Set by another program, or before the clock was set back.
  end_pauses(platform, now + DAY_MS + 1, '+inf')
  return 1
end

-- `asker` is the person who asks for it; without one, any reply may be stopped.
function verbs.stop(id, asker)
  id = lead_of(id) or id
  if not is_open(record(id)) then return 0 end
  if (asker or '') ~= '' and asker_of(id) ~= asker then return 'asker' end
  redis.call('HSET', key('turn', id), 'stop', '1')
  redis.call('PUBLISH', key('stops'), id)
  return 1
end

-- Stops the first turn of the mailbox if it was taken before: other turns are not visible yet.
function verbs.stop_thread(thread)
  local id = redis.call('LINDEX', key('mailbox', thread), 0)
  if not id or record(id).fence == '0' then return 0 end
  return verbs.stop(id)
end

-- Stops the answers of a person that people see or wait for next, in this thread or anywhere in `channel`,
-- which may be ''. `id` is that of the message with the request: a redelivery is not a question either.
function verbs.stop_own(id, thread, person, channel)
  local state = record(id).state
  if state then return state == 'dropped' and 1 or 0 end
  local stopped = 0
  for _, own in ipairs(redis.call('SMEMBERS', key('open', person))) do
    local turn = record(own)
    local place = turn.thread or ''
    local is_here = place == thread or channel ~= '' and string.sub(place, 1, #channel) == channel
    local is_next = turn.fence ~= '0' or redis.call('LINDEX', key('mailbox', place), 0) == own
    if is_here and is_next then stopped = verbs.stop(own) + stopped end
  end
  if stopped == 0 then return 0 end
  mark_dropped(id, PRESS_MS)
  return 1
end

-- The thread's next turn does not wait for what the dropped one waited for. If the drop leaves room for one
-- more turn of its person, another thread of the person becomes ready.
local function drop(id, turn)
  local mailbox, platform = key('mailbox', turn.thread), platform_of(turn.thread)
  local first = redis.call('LINDEX', mailbox, 0) == id
  redis.call('HSET', key('turn', id), 'state', 'dropped')
  settle(id, turn, false, 0)
  drop_question(id)
  redis.call('LREM', mailbox, 1, id)
  close(id, turn.person)
  if not first then return end
  redis.call('ZREM', key('ready_threads', platform), turn.thread)
  redis.call('ZREM', key('delayed', platform), turn.thread)
  redis.call('ZREM', key('throttled', turn.person), turn.thread)
  if redis.call('LLEN', mailbox) > 0 then make_ready(turn.thread) end
  wake_throttled(turn.person)
end

-- Adds to `ids` the turns of a thread, open or remembered, whose answer has one of these messages (a set). A
-- message that a worker has deleted belongs to no answer.
local function find_answers(thread, wanted, ids)
  local turns = redis.call('LRANGE', key('mailbox', thread), 0, -1)
  for _, line in ipairs(redis.call('LRANGE', key('history', thread), 0, -1)) do
    table.insert(turns, turn_of(line))
  end
  for _, id in ipairs(turns) do
    local removed, found = {}, false
    for _, message in ipairs(ids_in(redis.call('HGET', key('turn', id), MESSAGE_IDS) or '')) do
      if wanted[message] then
        for _, own in ipairs(removed_messages(id)) do removed[own] = true end
        found = found or not removed[message]
      end
    end
    if found then
      -- First, because otherwise they would be answered by themselves.
      for _, joined in ipairs(joined_to(id)) do table.insert(ids, joined) end
      table.insert(ids, id)
    end
  end
end

-- A turn that has ended is forgotten with those that were answered together with it.
local function forget_joined(lead, remembered)
  redis.call('HSETNX', key('turn', lead), 'forget', '1')
  remembered[lead] = true
  drop_question(lead)
  for _, one in ipairs(joined_to(lead)) do drop_question(one) end
end

-- With AFTER_REPAIR, an answer whose buttons are to go stays until then.
local function drop_forgotten_answer(id, how)
  local name, turn = key('turn', id), record(id)
  if redis.call('HEXISTS', name, 'forget') == 0 then return end
  redis.call('HSET', name, 'forget', how)
  redis.call('HDEL', name, PREVIOUS_ANSWER)
  local has_repair = how == AFTER_REPAIR and redis.call('ZSCORE', key('repairs', platform_of(turn.thread)), id)
  if not is_open(turn) and not has_repair then redis.call('HSET', name, 'shown', '') end
end

-- The turns of the first arguments, `count` in number, and those whose answers have the messages behind them. A
-- message may be that of a post whose answer is under way (`may_be_admitted_later`).
local function turns_of(may_be_admitted_later, platform, count, ...)
  local ids, threads, all = {}, {}, {...}
  for at, one in ipairs(all) do
    if at <= tonumber(count) then
      table.insert(ids, one)
    else
      local thread = redis.call('GET', key('posted', platform, one))
      if thread then
        threads[thread] = threads[thread] or {}
        threads[thread][one] = true
      elseif may_be_admitted_later then
        redis.call('SET', key('deleted', platform, one), '1', 'PX', LATE_ADMISSION_MS)
      end
    end
  end
  for thread, wanted in pairs(threads) do find_answers(thread, wanted, ids) end
  return ids
end

-- If the newest reply of a thread is among those that are forgotten, the last one that is remembered is the newest
-- again. Both are written once more: this one with its buttons, and the other one, if it is still there, without.
local function note_older_newest(thread, ids)
  local name, last = key('newest', thread), last_remembered(thread)
  local newest = redis.pcall('GET', name)
  if type(newest) ~= 'string' or not ids[newest] then return end
  repair_buttons(newest, thread)
  if last == '' or last_of(redis.call('HGET', key('turn', last), MESSAGE_IDS) or '') == '' then return end
  redis.call('SET', name, last, 'PX', ARGV[2])
  repair_buttons(last, thread)
end

-- Forgets these turns and all that continues them. A turn that was released in mid-reply is taken once more, to
-- end what is shown.
local function forget_turns(ids, may_be_admitted_later)
  local remembered, known = {}, {}
  -- An answer goes with all that continues it; ipairs finds those that are added here, too.
  for _, one in ipairs(ids) do
    local answered = lead_of(one) or one
    for _, following in ipairs(known[answered] and {} or continued_by(answered)) do
      table.insert(ids, following)
    end
    known[answered] = true
  end
  for _, id in ipairs(ids) do
    local turn, name, lead = record(id), key('turn', id), lead_of(id)
    drop_from_contexts(id)
    if lead then leave_out(id, lead) end
    if turn.thread and turn.state == 'queued' and redis.call('HEXISTS', name, MESSAGE_IDS) == 0 then
      redis.call('HDEL', name, 'joined')
      drop(id, turn)
    elseif turn.thread then
      redis.call('HSETNX', name, 'forget', '1')
      redis.call('HDEL', name, ANEW)
      remembered[turn.thread] = remembered[turn.thread] or {}
      local here = remembered[turn.thread]
      here[id] = true
      if lead then
        drop_question(id)
        -- The exchange has the question, too.
        here[lead] = true
        if not is_open(record(lead)) then forget_joined(lead, here) end
      elseif is_open(turn) then
        verbs.stop(id)
        -- Those that wait are answered by themselves.
        redis.call('HDEL', name, 'joined')
      else
        forget_joined(id, here)
      end
    elseif may_be_admitted_later then
      mark_unknown(id)
    end
  end
  for thread, ids in pairs(remembered) do
    forget_exchanges(thread, ids)
    note_older_newest(thread, ids)
  end
end

-- `asked` is when the last of the turns was asked (ms; '' if that is not known). If that is less than ten
-- minutes ago, its admission may still come.
function verbs.forget(asked, ...)
  local may_be_admitted_later = now_ms() - (tonumber(asked) or now_ms()) < LATE_ADMISSION_MS
  forget_turns(turns_of(may_be_admitted_later, ...), may_be_admitted_later)
end

-- Forgets all that was said in a thread, and stops the answer that grows; questions that wait are answered without what
-- was before them. `event` is the id of a command in a thread whose replies have buttons, else ''. It counts once.
function verbs.reset(thread, event)
  if event ~= '' and not redis.call('SET', key('pressed', event), thread, 'NX', 'PX', PRESS_MS) then return 0 end
  local ids = redis.call('ZRANGE', key('turns', thread), 0, -1)
  for _, line in ipairs(redis.call('LRANGE', key('history', thread), 0, -1)) do table.insert(ids, turn_of(line)) end
  for _, id in ipairs(redis.call('LRANGE', key('mailbox', thread), 0, -1)) do
    if redis.call('HEXISTS', key('turn', id), MESSAGE_IDS) == 1 or record(id).state == 'running' then
      -- In front, joined questions before their lead: otherwise they would be answered by themselves.
      for _, one in ipairs({id, unpack(joined_to(id))}) do table.insert(ids, 1, one) end
    end
    redis.call('HDEL', key('turn', id), 'context')
  end
  forget_turns(ids, false)
  for _, id in ipairs(ids) do drop_forgotten_answer(id, event == '' and WITH_ANSWER or AFTER_REPAIR) end
  redis.call('DEL', key('history', thread), key('names', thread), key('told', thread), key('turns', thread))
  note_seen(thread)
  return 1
end

-- Drops the answers of turns that were forgotten, also of those that end later. For platforms on which no late
-- write has to be corrected from them.
function verbs.forget_answers(...)
  for _, id in ipairs({...}) do drop_forgotten_answer(id, WITH_ANSWER) end
end

-- What is known of each of these turns, and the newest reply of its thread; a line of `false` if there is nothing.
function verbs.standings(...)
  local found = {}
  for at, id in ipairs({...}) do
    found[at] = redis.call('HMGET', key('turn', id),
      'state', 'thread', 'body', MESSAGE_IDS, 'shown', MORE, PREVIOUS_ANSWER, 'end', 'forget')
    local newest = found[at][2] and redis.pcall('GET', key('newest', found[at][2]))
    found[at][10] = type(newest) == 'string' and newest
  end
  return found
end

-- Returns what a person, and all people of the server of a thread, have used today: {questions, tokens, tokens of the
-- server, ms until the next day}.
function verbs.usage(person, thread)
  local day, left = today()
  local server = spent_on(day, server_of(thread), 'tokens')
  return {spent_on(day, person, 'questions'), spent_on(day, person, 'tokens'), server, left}
end

-- Returns how many turns are open, and for each platform how many run and for how long (ms) the next one waits.
function verbs.load(...)
  local found = {redis.call('ZCARD', key('open'))}
  for _, platform in ipairs({...}) do
    local thread = redis.call('ZRANGE', key('ready_threads', platform), 0, 0)[1]
    local first = thread and redis.call('LINDEX', key('mailbox', thread), 0)
    table.insert(found, redis.call('HLEN', key('claimed', platform)))
    table.insert(found, first and open_for(first) or 0)
  end
  return found
end

-- A consumer with pending tokens stays: they are reclaimed from it. This also removes those of killed
-- workers; a worker that reads creates its own again.
function verbs.remove_idle_consumers(platform)
  local tokens = key('tokens', platform)
  -- An error if the stream was never read.
  local consumers = redis.pcall('XINFO', 'CONSUMERS', tokens, GROUP)
  for _, consumer in ipairs(consumers) do
    local name, pending = consumer[2], consumer[4]
    if pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', tokens, GROUP, name)
    end
  end
  return 1
end
